// The messages of the conversation that is shown, and what can be done with each.

/** A message on the page. For an answer, refresh() shows what has come since. */
class MessageView {
  constructor(chat, message) {
    this.chat = chat;
    this.message = message;
    this.body = element('div', {class: 'body'});
    this.actions = element('div', {class: 'actions'});
    this.article = element('article', {'aria-label': message.role === 'user' ? 'You' : 'Answer'}, this.body, this.actions);
    this.item = element('li', {class: 'message ' + (message.role === 'user' ? 'user' : 'answer')}, this.article);
    if (message.role === 'user') this.buildUser();
    else this.buildAnswer();
  }

  buildUser() {
    this.body.append(this.message.content);
    this.actions.append(
      copyButton(iconButton('copy', 'Copy your message'), () => this.message.content),
      iconButton('edit', 'Edit your message', () => this.edit()));
  }

  buildAnswer() {
    this.thinking = element('details', {class: 'thinking', hidden: true}, element('summary', null, 'Thoughts'), element('div'));
    this.waiting = element('span', {class: 'waiting', hidden: true});
    this.end = element('div');
    this.stats = element('span', {class: 'stats'});
    this.article.prepend(this.thinking);
    this.body.after(this.waiting, this.end);
    this.view = new MarkdownView(this.body);
    this.buttons = [
      copyButton(iconButton('copy', 'Copy this answer'), () => this.message.content),
      iconButton('again', 'Answer again', () => answerAgain(this.chat, this.message)),
    ];
    this.actions.append(...this.buttons, this.stats);
    this.refresh();
  }

  refresh() {
    const {message} = this;
    const run = runs.get(this.chat.id);
    const running = run?.message === message;
    this.item.classList.toggle('running', running);
    this.item.setAttribute('aria-busy', String(running));
    this.view.update(message.content);
    this.thinking.hidden = !message.thinking;
    if (message.thinking) this.thinking.lastElementChild.textContent = message.thinking;
    this.waiting.hidden = !running || message.content !== '';
    for (const button of this.buttons) button.hidden = running;
    this.stats.textContent = statsOf(message, running);
    if (!running) this.showEnd();
  }

  showEnd() {
    const {message} = this;
    const remarks = {
      length: 'The answer reached its longest length.',
      abort: 'The server ended this answer.',
      stopped: 'Stopped.',
    };
    this.end.replaceChildren();
    if (message.trouble) {
      this.end.append(element('p', {class: 'trouble'}, message.trouble,
        element('button', {type: 'button', onclick: () => answerAgain(this.chat, message)}, 'Try again')));
    } else if (remarks[message.ended]) {
      this.end.append(element('p', {class: 'remark'}, remarks[message.ended]));
    }
  }

  edit() {
    const area = element('textarea', {rows: '1', 'aria-label': 'Edit your message'});
    area.value = this.message.content;
    const close = () => {
      editor.replaceWith(this.article);
      this.actions.querySelector('[aria-label^="Edit"]').focus();
    };
    const send = () => {
      const text = area.value.trim();
      if (text) sendEdited(this.chat, this.message, text);
    };
    area.addEventListener('input', () => fitHeight(area));
    area.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        event.stopPropagation();
        close();
      } else if (isSendKey(event)) {
        event.preventDefault();
        send();
      }
    });
    const editor = element('div', {class: 'editor'}, area, element('div', null,
      element('button', {type: 'button', class: 'plain', onclick: close}, 'Cancel'),
      element('button', {type: 'button', class: 'main', onclick: send}, 'Send')));
    this.article.replaceWith(editor);
    fitHeight(area);
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }
}

/** "128 tokens · 42.1 tokens/s · first after 0.12 s" */
function statsOf(message, running) {
  if (!message.tokens) return '';
  const parts = [];
  if (!running) parts.push(message.tokens === 1 ? '1 token' : message.tokens + ' tokens');
  if (message.tokens > 1 && message.seconds > 0) {
    const rate = (message.tokens - 1) / message.seconds;
    parts.push((rate < 100 ? rate.toFixed(1) : Math.round(rate)) + ' tokens/s');
  }
  if (!running && message.first > 0) parts.push('first after ' + message.first.toFixed(2) + ' s');
  return parts.join(' · ');
}

let views = [];

function showMessages() {
  views = (shown?.messages ?? []).map((message) => new MessageView(shown, message));
  $('messages').replaceChildren(...views.map((view) => view.item));
  views.at(-1)?.item.classList.add('last');
  $('welcome').hidden = views.length > 0;
  $('messages').hidden = views.length === 0;
  $('stage').classList.toggle('fresh', views.length === 0);
}

// The end stays in sight while an answer grows, until its reader scrolls up.
let following = true;
const kNearPixels = 40;

function isAtEnd() {
  const scroller = $('scroller');
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < kNearPixels;
}

function followEnd(always = false) {
  if (always) following = true;
  if (following) $('scroller').scrollTop = $('scroller').scrollHeight;
  $('to-end').hidden = following || isAtEnd();
}

function startScrolling() {
  const scroller = $('scroller');
  let last = 0;
  scroller.addEventListener('scroll', () => {
    if (isAtEnd()) following = true;
    else if (scroller.scrollTop < last) following = false;
    last = scroller.scrollTop;
    $('to-end').hidden = isAtEnd();
  }, {passive: true});
  $('to-end').onclick = () => followEnd(true);
  new ResizeObserver(() => followEnd()).observe(scroller);
}
