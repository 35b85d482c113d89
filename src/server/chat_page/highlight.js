// Colours for code: comments, strings, numbers and the words of many languages. It knows no grammar, and no expression
// here looks at a character more than a few times, whatever stands in the code.

const kMaxColouredCharacters = 40000;

const kWords = new Set((
  'abstract and as assert async await begin break case catch class const constexpr continue def default defer del do ' +
  'elif else elsif end enum except export extends extern false False final finally fn for from func function go goto ' +
  'if impl implements import in include inline instanceof interface is lambda let loop match mod module move mut ' +
  'namespace new nil None nonlocal not null nullptr of operator or override package pass private protected pub public ' +
  'raise ref return self sizeof static struct super switch template then this throw throws trait true True try type ' +
  'typedef typename typeof undefined union unless unsafe until use using var virtual void where while with yield ' +
  'int float double char bool boolean string long short unsigned signed auto echo fi done esac local ' +
  'select insert update delete create table index view join left right inner outer on group by order having limit ' +
  'into values set distinct union all exists like between primary key foreign references').split(' '));

const kHashLanguages = new Set(['python', 'py', 'bash', 'sh', 'shell', 'zsh', 'console', 'ruby', 'rb', 'perl', 'r', 'yaml',
  'yml', 'toml', 'ini', 'dockerfile', 'makefile', 'make', 'cmake', 'elixir', 'julia', 'nim', 'awk']);
const kDashLanguages = new Set(['sql', 'lua', 'haskell', 'hs', 'ada', 'elm']);
const kMarkupLanguages = new Set(['html', 'xml', 'svg', 'markdown', 'md']);
const kPlainLanguages = new Set(['', 'text', 'txt', 'plain', 'plaintext', 'output', 'diff', 'log']);

function commentPattern(language) {
  if (kHashLanguages.has(language)) return '#[^\\n]*';
  if (kDashLanguages.has(language)) return '--[^\\n]*';
  if (kMarkupLanguages.has(language)) return '<!--[\\s\\S]*?(?:-->|$)';
  return '\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)';
}

/** Appends `code` to `parent`, in spans. */
function appendCode(parent, code, language) {
  if (kPlainLanguages.has(language) || code.length > kMaxColouredCharacters) {
    parent.append(code);
    return;
  }
  const long = kHashLanguages.has(language) ? `"""[\\s\\S]*?(?:"""|$)|'''[\\s\\S]*?(?:'''|$)|` : '';
  const pattern = new RegExp(
    `(${commentPattern(language)})|(${long}"(?:\\\\.|[^"\\\\\\n])*"?|'(?:\\\\.|[^'\\\\\\n])*'?|\`(?:\\\\[\\s\\S]|[^\`\\\\])*\`?)` +
    '|\\b(\\d[\\w.]*)|([A-Za-z_$][\\w$]*)', 'g');
  const anyCase = language === 'sql';
  let done = 0;
  for (const match of code.matchAll(pattern)) {
    const [text, comment, string, number, word] = match;
    if (word && !kWords.has(anyCase ? word.toLowerCase() : word)) continue;
    if (match.index > done) parent.append(code.slice(done, match.index));
    const kind = comment ? 'comment' : string ? 'string' : number ? 'number' : 'word';
    parent.append(element('span', {class: 't-' + kind}, text));
    done = match.index + text.length;
  }
  parent.append(code.slice(done));
}
