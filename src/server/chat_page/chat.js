// The conversation: asks, stops, asks again. What is under way goes on when another conversation is shown.

const chats = storedChats();
const runs = new Map();  // id of a conversation → {controller, message}
let shown = null;        // the conversation on the page; null: a new one
const kSavePause = 1000;

function showChat(chat, remember = true) {
  shown = chat;
  if (remember) {
    const place = chat ? '#' + chat.id : location.pathname;
    if (location.hash.slice(1) !== (chat?.id ?? '')) history.pushState(null, '', place);
  }
  showMessages();
  showChats();
  showComposer();
  followEnd(true);
}

function showComposer() {
  const running = shown !== null && runs.has(shown.id);
  $('send').hidden = running;
  $('stop').hidden = !running;
  $('send').disabled = $('message').value.trim() === '';
}

function send() {
  const area = $('message');
  const text = area.value.trim();
  if (!text || (shown && runs.has(shown.id))) return;
  if (!shown) {
    const chat = newChat(text);
    chats.set(chat.id, chat);
    showChat(chat);
  }
  area.value = '';
  fitHeight(area);
  shown.messages.push({role: 'user', content: text});
  answer(shown);
}

function sendEdited(chat, message, text) {
  stop(chat);
  const place = chat.messages.indexOf(message);
  if (place < 0) return;
  if (place === 0 && chat.title === titleOf(message.content)) chat.title = titleOf(text);
  chat.messages.splice(place, Infinity, {role: 'user', content: text});
  answer(chat);
  $('message').focus();
}

function answerAgain(chat, message) {
  stop(chat);
  const place = chat.messages.indexOf(message);
  if (place < 0) return;
  chat.messages.splice(place);
  answer(chat);
  $('message').focus();
}

function stop(chat) {
  const run = chat && runs.get(chat.id);
  if (!run) return false;
  run.stopped = true;
  run.controller.abort();
  finish(chat, run);
  return true;
}

/** The end of a run, whichever way it came; once. */
function finish(chat, run) {
  if (runs.get(chat.id) !== run) return;
  runs.delete(chat.id);
  const {message} = run;
  if (run.stopped) message.ended = 'stopped';
  chat.updated = Date.now();
  if (chats.get(chat.id) === chat) saveChat(chat);
  showChats();
  if (chat !== shown) return;
  views.at(-1)?.refresh();
  showComposer();
  followEnd();
  announce(message.trouble ?? (run.stopped ? 'Stopped' : 'Answer: ' + message.content));
}

/** Asks for an answer to the last message of `chat`. */
async function answer(chat) {
  const prompt = promptOf(chat.messages, settings.system);
  const message = {role: 'assistant', content: ''};
  const run = {controller: new AbortController(), message, stopped: false};
  chat.messages.push(message);
  chat.updated = Date.now();
  runs.set(chat.id, run);
  saveChat(chat);
  if (chat === shown) {
    showMessages();
    showComposer();
    followEnd(true);
  }
  showChats();
  announce('The model is answering');
  try {
    await receive(chat, run, prompt);
  } catch (error) {
    if (!run.stopped) message.trouble = error instanceof Refused ? error.message : 'The answer could not be read.';
    if (error.status === 401) askForKey(apiKey ? 'The server does not take this key.' : '');
  }
  finish(chat, run);
}

async function receive(chat, run, prompt) {
  const {message} = run;
  const asked = performance.now();
  let first = 0;
  let saved = asked;
  let frame = 0;
  const show = () => {
    frame = 0;
    if (chat !== shown || runs.get(chat.id) !== run) return;
    views.at(-1).refresh();
    followEnd();
  };
  const result = await streamAnswer(prompt, samplingSettings(), run.controller.signal, ({text, thinking}) => {
    if (run.stopped) return;
    const now = performance.now();
    if (first === 0) {
      first = now;
      message.first = (now - asked) / 1000;
    }
    message.content += text;
    if (thinking) message.thinking = (message.thinking ?? '') + thinking;
    message.tokens = (message.tokens ?? 0) + 1;  // a piece is a token, nearly always; the server counts in the end
    message.seconds = (now - first) / 1000;
    if (!frame) frame = requestAnimationFrame(show);
    if (now - saved > kSavePause) {
      saved = now;
      if (chats.get(chat.id) === chat) saveChat(chat);
    }
  });
  message.ended = result.ended;
  if (result.tokens) message.tokens = result.tokens;
  if (result.ended === 'error') throw new Refused(500, 'The engine failed on this answer.');
}

function startComposer() {
  const area = $('message');
  area.addEventListener('input', () => {
    fitHeight(area);
    showComposer();
  });
  area.addEventListener('keydown', (event) => {
    if (!isSendKey(event)) return;
    event.preventDefault();
    send();
  });
  $('form').onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  $('stop').onclick = () => {
    stop(shown);
    area.focus();
  };
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || event.isComposing || document.querySelector('dialog[open]')) return;
    if (!closeDrawer()) stop(shown);
  });
}

/** The conversation that the address names. */
function showNamed() {
  const chat = chats.get(location.hash.slice(1)) ?? null;
  if (!chat && location.hash) history.replaceState(null, '', location.pathname);
  showChat(chat, false);
}

/** Another tab has changed what is kept. */
function onStorage(event) {
  if (event.key !== null && !event.key.startsWith(kChatPrefix)) return;
  const stored = storedChats();
  for (const id of [...chats.keys()]) if (!stored.has(id) && !runs.has(id)) chats.delete(id);
  for (const [id, chat] of stored) if (!runs.has(id)) chats.set(id, chat);
  if (shown && !runs.has(shown.id)) {
    shown = chats.get(shown.id) ?? null;
    if (!document.querySelector('.editor')) showMessages();
  }
  showChats();
  showComposer();
}

startSettings();
startSidebar();
startComposer();
startScrolling();
showNamed();
findModel();
addEventListener('popstate', showNamed);
addEventListener('storage', onStorage);
addEventListener('pagehide', () => {
  for (const id of runs.keys()) stop(chats.get(id));
});
if (matchMedia('(hover: hover)').matches) $('message').focus();
