// Elements are made here, from names and texts. Nothing on this page parses HTML: what a model writes only ever becomes
// the text of a node, and the page's Trusted Types policy would stop anything else.
const $ = (id) => document.getElementById(id);

/** element('button', {class: 'icon', onclick: …}, 'text', child, [more children], …) */
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, '');
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  for (const child of children.flat()) made.append(child);  // one by one: there may be more than a call takes
  return made;
}

function icon(name) {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(space, 'use');
  use.setAttribute('href', '#icon-' + name);
  svg.append(use);
  return svg;
}

function iconButton(name, label, onclick) {
  return element('button', {type: 'button', class: 'icon small', 'aria-label': label, title: label, onclick}, icon(name));
}

async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Without TLS, from another machine, browsers offer only the old way.
  const before = document.activeElement;
  const area = element('textarea', {class: 'hidden', 'aria-hidden': 'true'});
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand('copy');
  area.remove();
  before?.focus();
  if (!copied) throw new Error('The browser did not let the text be copied.');
}

/** A button that shows for a moment that it has copied. */
function copyButton(button, text) {
  const image = button.querySelector('svg');
  button.addEventListener('click', async () => {
    try {
      await copyText(text());
    } catch {
      toast('The browser did not let the text be copied.');
      return;
    }
    const done = icon('done');
    button.querySelector('svg').replaceWith(done);
    announce('Copied');
    setTimeout(() => done.replaceWith(image), 1500);
  });
  return button;
}

/** Read out by screen readers. */
function announce(text) {
  const announcer = $('announcer');
  announcer.textContent = '';
  setTimeout(() => { announcer.textContent = text; }, 60);
}

let toastTimer = 0;
function toast(text, action, onaction) {
  const box = $('toast');
  box.firstElementChild.textContent = text;
  const button = box.lastElementChild;
  button.textContent = action ?? '';
  button.onclick = () => {
    box.hidden = true;
    onaction?.();
  };
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { box.hidden = true; }, action ? 8000 : 4000);
}

/** As high as its text. */
function fitHeight(area) {
  area.style.height = 'auto';
  area.style.height = area.scrollHeight + 'px';
}

/** Enter sends and Shift+Enter does not; on a touch screen Enter is a new line, as its keyboard says. */
function isSendKey(event) {
  return event.key === 'Enter' && !event.shiftKey && !event.isComposing && !matchMedia('(pointer: coarse)').matches;
}
