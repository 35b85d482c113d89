// Markdown as models write it: CommonMark's blocks with tables and task lists, and a line break where a line ends.
//
//   const view = new MarkdownView(body);
//   view.update(text);          // as often as the text grows: only blocks that changed are made anew

const kMaxDepth = 8;  // of quotes and lists in each other; deeper ones are paragraphs

const kFence = /^( {0,3})(`{3,}|~{3,})[ \t]*([^`]*)$/;
const kHeading = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const kRule = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const kQuote = /^ {0,3}> ?/;
const kMarker = /^( *)([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const kTask = /^\[([ xX])\][ \t]+/;

const indentOf = (line) => line.length - line.trimStart().length;
const isBlank = (line) => line.trim() === '';

function cellsOf(line) {
  let row = line.trim();
  if (row.startsWith('|')) row = row.slice(1);
  const cells = [''];
  let ticks = false;
  for (let i = 0; i < row.length; ++i) {
    if (row[i] === '\\' && row[i + 1] === '|') {
      cells[cells.length - 1] += '|';
      ++i;
    } else if (row[i] === '|' && !ticks) {
      cells.push('');
    } else {
      if (row[i] === '`') ticks = !ticks;
      cells[cells.length - 1] += row[i];
    }
  }
  if (cells.length > 1 && isBlank(cells.at(-1))) cells.pop();
  return cells.map((cell) => cell.trim());
}

function alignments(line) {
  if (line === undefined || !line.includes('-') || !line.includes('|')) return null;
  const cells = cellsOf(line);
  if (!cells.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return cells.map((cell) => (!cell.endsWith(':') ? '' : cell.startsWith(':') ? 'center' : 'right'));
}

function isTable(lines, at) {
  if (!lines[at].includes('|')) return null;
  const aligned = alignments(lines[at + 1]);
  return aligned && cellsOf(lines[at]).length === aligned.length ? aligned : null;
}

/** Whether this line ends a paragraph before it. */
function beginsBlock(lines, at) {
  const line = lines[at];
  if (kFence.test(line) || kHeading.test(line) || kRule.test(line) || kQuote.test(line)) return true;
  const marker = kMarker.exec(line);
  if (marker && marker[1].length < 4 && marker[0].length < line.length) return !/^\d/.test(marker[2]) || parseInt(marker[2], 10) === 1;
  return isTable(lines, at) !== null;
}

/** The blocks of these lines: [{begin, end, make}]; make(depth) gives its element. */
function blocksOf(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      ++at;
      continue;
    }
    const block = blockAt(lines, at, depth);
    blocks.push({begin: at, ...block});
    at = block.end;
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = kFence.exec(line);
  if (fence) return fenceBlock(lines, at, fence);
  if (kHeading.test(line)) {
    const level = kHeading.exec(line)[1].length;
    const text = line.replace(kHeading, '').trimEnd().replace(/(^|[ \t])#+$/, '');
    return {end: at + 1, make: () => element('h' + Math.min(level + 1, 6), null, inlineNodes(text.trim()))};
  }
  if (kRule.test(line)) return {end: at + 1, make: () => element('hr')};
  if (depth < kMaxDepth && kQuote.test(line)) return quoteBlock(lines, at, depth);
  const marker = kMarker.exec(line);
  if (depth < kMaxDepth && marker && marker[1].length < 4) return listBlock(lines, at, marker, depth);
  const aligned = isTable(lines, at);
  if (aligned) return tableBlock(lines, at, aligned);
  return paragraphBlock(lines, at);
}

function paragraphBlock(lines, at) {
  let end = at + 1;
  while (end < lines.length && !isBlank(lines[end]) && !beginsBlock(lines, end)) ++end;
  const text = lines.slice(at, end).map((line) => line.trim()).join('\n');
  return {end, text, make: () => element('p', null, inlineNodes(text))};
}

function fenceBlock(lines, at, fence) {
  const closing = new RegExp(`^ {0,3}\\${fence[2][0]}{${fence[2].length},}[ \\t]*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) ++end;
  const indent = fence[1].length;
  const code = lines.slice(at + 1, end).map((line) => line.slice(Math.min(indent, indentOf(line)))).join('\n');
  const language = fence[3].trim().split(/\s/)[0].slice(0, 30);
  return {end: Math.min(end + 1, lines.length), make: () => codeElement(code, language)};
}

function codeElement(code, language) {
  const text = element('code');
  appendCode(text, code, language.toLowerCase());
  const copy = element('button', {type: 'button', 'aria-label': 'Copy this code'}, icon('copy'), 'Copy');
  return element('div', {class: 'code'},
    element('div', {class: 'code-head'}, element('span', null, language || 'text'), copyButton(copy, () => code)),
    element('pre', {tabindex: '0', 'aria-label': language ? 'Code in ' + language : 'Code'}, text));
}

function quoteBlock(lines, at, depth) {
  let end = at;
  const inside = [];
  while (end < lines.length && !isBlank(lines[end])) {
    if (!kQuote.test(lines[end]) && beginsBlock(lines, end)) break;
    inside.push(lines[end].replace(kQuote, ''));
    ++end;
  }
  return {end, make: () => element('blockquote', null, elementsOf(inside, depth + 1))};
}

function listBlock(lines, at, first, depth) {
  const ordered = /^\d/.test(first[2]);
  const kind = first[2].at(-1);
  const items = [];
  let loose = false;
  let end = at;
  let blank = false;
  let content = 0;  // the column where the item's text begins
  while (end < lines.length) {
    const line = lines[end];
    if (isBlank(line)) {
      blank = true;
      items.at(-1)?.push('');
      ++end;
      continue;
    }
    const indent = indentOf(line);
    const marker = kMarker.exec(line);
    const nested = items.length > 0 && (indent >= content || (marker && indent >= first[1].length + 2));
    if (nested) {
      items.at(-1).push(line.slice(Math.min(indent, content)));
    } else if (marker && marker[2].at(-1) === kind && !kRule.test(line)) {
      if (blank) loose = true;
      content = Math.min(marker[0].length, marker[1].length + marker[2].length + 4);
      items.push([line.slice(marker[0].length)]);
    } else if (blank || beginsBlock(lines, end)) {
      break;
    } else {
      items.at(-1).push(line.trim());
    }
    blank = false;
    ++end;
  }
  const start = ordered ? parseInt(first[2], 10) : 1;
  return {
    end,
    make: () => element(ordered ? 'ol' : 'ul', start === 1 ? null : {start}, items.map((item) => itemElement(item, loose, depth))),
  };
}

function itemElement(lines, loose, depth) {
  const task = kTask.exec(lines[0]);
  if (task) lines = [lines[0].slice(task[0].length), ...lines.slice(1)];
  const made = element('li', task ? {class: 'task'} : null);
  if (task) {
    const done = task[1] !== ' ';
    made.append(element('input', {type: 'checkbox', disabled: true, checked: done, 'aria-label': done ? 'done' : 'to do'}));
  }
  blocksOf(lines, depth + 1).forEach((block, place) => {
    if (block.text !== undefined && !loose && place === 0) for (const node of inlineNodes(block.text)) made.append(node);
    else made.append(block.make());
  });
  return made;
}

function tableBlock(lines, at, aligned) {
  let end = at + 2;
  while (end < lines.length && !isBlank(lines[end]) && lines[end].includes('|')) ++end;
  const row = (line, name) => {
    const cells = cellsOf(line);
    return element('tr', null, aligned.map((side, i) =>
      element(name, {class: side || undefined, scope: name === 'th' ? 'col' : undefined}, inlineNodes(cells[i] ?? ''))));
  };
  const make = () => element('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Table'},
    element('table', null, element('thead', null, row(lines[at], 'th')),
      element('tbody', null, lines.slice(at + 2, end).map((line) => row(line, 'td')))));
  return {end, make};
}

function elementsOf(lines, depth) {
  return blocksOf(lines, depth).map((block) => block.make());
}

class MarkdownView {
  constructor(parent) {
    this.parent = parent;
    this.sources = [];
  }

  update(text) {
    const lines = text.replaceAll('\r\n', '\n').replaceAll('\t', '    ').split('\n');
    const blocks = blocksOf(lines, 0);
    const sources = blocks.map((block) => lines.slice(block.begin, block.end).join('\n'));
    let same = 0;
    while (same < sources.length && sources[same] === this.sources[same]) ++same;
    while (this.parent.children.length > same) this.parent.lastElementChild.remove();
    for (const block of blocks.slice(same)) this.parent.append(block.make());
    this.sources = sources;
  }
}
