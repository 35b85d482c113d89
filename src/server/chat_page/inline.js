// What stands inside a paragraph of Markdown: emphasis, code, links. inlineNodes('**a** b') is [<strong>a</strong>, ' b'].
//
// Emphasis is found as CommonMark finds it, by runs of delimiters. Links lead to http and https alone; an image becomes a
// link, since this page loads nothing from elsewhere. HTML stays text, but for <br>.

const kMaxUrl = 2000;
const kMaxNesting = 12;
const kSpecial = /[\\`*_~[\]!<\n]|https?:\/\//g;
const kEscapable = /[\\`*_{}<>#+\-.!|~]/;
const kTarget = new RegExp(
  `\\([ \\t\\n]*(?:<([^<>\\n]{0,${kMaxUrl}})>|((?:[^\\s()<>]|\\([^\\s()<>]*\\)){0,${kMaxUrl}}))` +
  '(?:[ \\t\\n]+"[^"]*"|[ \\t\\n]+\'[^\']*\')?[ \\t\\n]*\\)', 'y');
const kBareUrl = new RegExp(`https?://[^\\s<>"'\`]{1,${kMaxUrl}}`, 'y');
const kAngleUrl = new RegExp(`<(https?://[^\\s<>]{1,${kMaxUrl}})>`, 'y');
const kBreak = /<br\s{0,3}\/?>/iy;

function safeUrl(text) {
  try {
    const url = new URL(text);  // without a base: what is relative is no address for a model to give
    return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : null;
  } catch {
    return null;
  }
}

function link(url, children) {
  return element('a', {href: url, target: '_blank', rel: 'noopener noreferrer nofollow'}, children);
}

function matchAt(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/** For each run of backticks: where the next one of the same length begins. */
function closingTicks(text) {
  const closing = new Map();
  const last = new Map();
  for (const {0: run, index} of text.matchAll(/`+/g)) {
    if (last.has(run.length)) closing.set(last.get(run.length), index);
    last.set(run.length, index);
  }
  return closing;
}

function trimmedUrl(url) {
  let end = url.length;
  while (end > 0) {
    const last = url[end - 1];
    const open = last === ')' && url.slice(0, end).split('(').length >= url.slice(0, end).split(')').length;
    if (open || !/[.,:;!?*_~)\]]/.test(last)) break;
    --end;
  }
  return url.slice(0, end);
}

class InlineParser {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.items = [];     // nodes, strings, and delimiters {mark, count, opens, closes}
    this.brackets = [];  // places of "[" in items
    this.ticks = closingTicks(text);
  }

  parse() {
    const {text} = this;
    while (this.at < text.length) {
      kSpecial.lastIndex = this.at;
      const found = kSpecial.exec(text);
      const next = found ? found.index : text.length;
      if (next > this.at) this.items.push(text.slice(this.at, next));
      this.at = next;
      if (found) this.special(text[next]);
    }
    return joined(resolveEmphasis(this.items));
  }

  put(item, length) {
    this.items.push(item);
    this.at += length;
  }

  special(character) {
    switch (character) {
      case '\\': return this.escape();
      case '`': return this.code();
      case '*': case '_': case '~': return this.delimiter(character);
      case '[': return this.open(1);
      case '!': return this.text[this.at + 1] === '[' ? this.open(2) : this.put('!', 1);
      case ']': return this.close();
      case '<': return this.angle();
      case '\n': return this.put(element('br'), 1);
      default: return this.bareUrl();
    }
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next !== undefined && kEscapable.test(next)) return this.put(next, 2);
    return this.put('\\', 1);
  }

  code() {
    let end = this.at;
    while (this.text[end] === '`') ++end;
    const closing = this.ticks.get(this.at);
    const length = end - this.at;
    if (closing === undefined) return this.put('`'.repeat(length), length);
    let inside = this.text.slice(end, closing).replaceAll('\n', ' ');
    if (inside.length > 2 && inside.startsWith(' ') && inside.endsWith(' ')) inside = inside.slice(1, -1);
    return this.put(element('code', null, inside), closing + length - this.at);
  }

  delimiter(mark) {
    let end = this.at;
    while (this.text[end] === mark) ++end;
    const before = this.text[this.at - 1] ?? ' ';
    const after = this.text[end] ?? ' ';
    const space = /\s/, sign = /[\p{P}\p{S}]/u;
    const left = !space.test(after) && (!sign.test(after) || space.test(before) || sign.test(before));
    const right = !space.test(before) && (!sign.test(before) || space.test(after) || sign.test(after));
    const word = mark === '_';
    this.put({
      mark,
      count: end - this.at,
      opens: word ? left && (!right || sign.test(before)) : left,
      closes: word ? right && (!left || sign.test(after)) : right,
    }, end - this.at);
  }

  open(length) {
    this.brackets.push(this.items.length);
    this.put(length === 1 ? '[' : '![', length);
  }

  close() {
    const opener = this.brackets.pop();
    const target = opener === undefined ? null : matchAt(kTarget, this.text, this.at + 1);
    const url = target ? safeUrl(target[1] ?? target[2]) : null;
    if (!url) return this.put(']', 1);
    const children = joined(resolveEmphasis(this.items.splice(opener).slice(1)));
    this.brackets = [];  // no link in a link
    return this.put(link(url, children.length ? children : url), 1 + target[0].length);
  }

  angle() {
    const line = matchAt(kBreak, this.text, this.at);
    if (line) return this.put(element('br'), line[0].length);
    const found = matchAt(kAngleUrl, this.text, this.at);
    const url = found && safeUrl(found[1]);
    return url ? this.put(link(url, found[1]), found[0].length) : this.put('<', 1);
  }

  bareUrl() {
    const found = matchAt(kBareUrl, this.text, this.at);
    const shown = found ? trimmedUrl(found[0]) : '';
    const url = safeUrl(shown);
    if (this.brackets.length > 0 || !url) return this.put('http', 4);
    return this.put(link(url, shown), shown.length);
  }
}

/** Delimiters that nothing closed become text, and neighbouring texts one. */
function joined(items) {
  const out = [];
  let text = '';
  for (const item of items) {
    if (typeof item === 'string' || item.mark) {
      text += item.mark ? item.mark.repeat(item.count) : item;
      continue;
    }
    if (text) out.push(text);
    text = '';
    out.push(item);
  }
  if (text) out.push(text);
  return out;
}

/** Pairs delimiters, innermost first; a closer looks back for an opener only as far as none was found before. */
function resolveEmphasis(items) {
  let out = [];
  const openers = {'*': [], '_': [], '~': []};  // places in out
  for (const item of items) {
    if (!item.mark) {
      out.push(item);
      continue;
    }
    const closer = {...item};
    while (closer.closes && closer.count > 0) {
      const stack = openers[closer.mark];
      if (stack.length === 0) break;
      const place = stack.at(-1);
      const opener = out[place];
      const used = closer.mark === '~' ? Math.min(opener.count, closer.count, 2) : opener.count >= 2 && closer.count >= 2 ? 2 : 1;
      if (closer.mark === '~' && used !== 2) break;
      const name = closer.mark === '~' ? 's' : used === 2 ? 'strong' : 'em';
      const inside = joined(out.splice(place + 1));
      for (const others of Object.values(openers)) while (others.length && others.at(-1) > place) others.pop();
      out.push(nest(name, inside));
      opener.count -= used;
      closer.count -= used;
      if (opener.count === 0) {
        stack.pop();
        out.splice(place, 1);
      }
    }
    if (closer.count > 0) {
      if (closer.opens) openers[closer.mark].push(out.length);
      out.push(closer);
    }
  }
  return out;
}

/** Deep nesting harms layout, not parsing: beyond a depth the text goes without its emphasis. */
function nest(name, children) {
  const depth = 1 + children.reduce((deepest, child) => Math.max(deepest, child.depth ?? 0), 0);
  const made = depth > kMaxNesting ? document.createDocumentFragment() : element(name);
  for (const child of children) made.append(child);
  made.depth = Math.min(depth, kMaxNesting);
  return made;
}

function inlineNodes(text) {
  return new InlineParser(text).parse();
}
