// What the browser keeps: conversations, each under a key of its own, and the settings.
//
// A conversation is {id, title, updated, messages}; a message is {role, content} and, for an answer, what was measured:
// {thinking, tokens, seconds, first, ended}. Texts alone are kept, never elements.

const kChatPrefix = 'lanner.chat.';
const kSettingsKey = 'lanner.settings';
const kKeyKey = 'lanner.key';
const kNumberSettings = ['temperature', 'top_p', 'top_k', 'min_p', 'repetition_penalty', 'max_completion_tokens', 'seed'];

function readStored(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? fallback;
  } catch {
    return fallback;  // storage is switched off, or another program wrote there
  }
}

/** Whether there was room. */
function writeStored(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

function removeStored(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // then there was nothing
  }
}

function isChat(value) {
  return typeof value?.id === 'string' && typeof value.title === 'string' && Array.isArray(value.messages) &&
    value.messages.every((message) => (message?.role === 'user' || message?.role === 'assistant') && typeof message.content === 'string');
}

function storedChat(id) {
  const chat = readStored(kChatPrefix + id, null);
  return isChat(chat) && chat.id === id ? chat : null;
}

function storedChats() {
  const chats = new Map();
  try {
    for (let i = 0; i < localStorage.length; ++i) {
      const key = localStorage.key(i);
      const chat = key.startsWith(kChatPrefix) ? storedChat(key.slice(kChatPrefix.length)) : null;
      if (chat) chats.set(chat.id, chat);
    }
  } catch {
    // storage is switched off: conversations last as long as the page
  }
  return chats;
}

let saidFull = false;
function saveChat(chat) {
  if (writeStored(kChatPrefix + chat.id, chat) || saidFull) return;
  saidFull = true;
  toast('The browser has no room for this conversation. Delete older ones to keep new ones.');
}

function newChat(text) {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36).padStart(2, '0')).join('');
  return {id, title: titleOf(text), updated: Date.now(), messages: []};
}

function titleOf(text) {
  const line = text.trim().split('\n')[0].trim();
  return line.length > 60 ? line.slice(0, 57).trimEnd() + '…' : line;
}

/** The key for the server: kept for the tab, or for the browser where its owner said so. */
function readKey() {
  try {
    return sessionStorage.getItem(kKeyKey) ?? localStorage.getItem(kKeyKey) ?? '';
  } catch {
    return '';
  }
}

function writeKey(key, keep) {
  try {
    sessionStorage.setItem(kKeyKey, key);
    if (keep) localStorage.setItem(kKeyKey, key);
    else localStorage.removeItem(kKeyKey);
  } catch {
    // the page goes on with the key that it has
  }
}
