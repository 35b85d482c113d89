// The list of conversations: open, rename, delete with a way back.

const kNarrow = matchMedia('(max-width: 46rem)');

function setSidebar(open, remember = true) {
  document.body.classList.toggle('side-closed', !open);
  $('stage').inert = open && kNarrow.matches;
  $('open-sidebar').setAttribute('aria-expanded', String(open));
  if (remember && !kNarrow.matches) {
    settings.sideClosed = !open;
    saveSettings();
  }
}

function isSidebarOpen() {
  return !document.body.classList.contains('side-closed');
}

function closeDrawer() {
  if (!kNarrow.matches || !isSidebarOpen()) return false;
  setSidebar(false);
  $('open-sidebar').focus();
  return true;
}

function showChats() {
  const sorted = [...chats.values()].sort((a, b) => b.updated - a.updated);
  const focused = document.activeElement?.closest?.('#chats li')?.dataset.id;
  $('chats').replaceChildren(...sorted.map(chatItem));
  $('no-chats').hidden = sorted.length > 0;
  if (focused) $('chats').querySelector(`li[data-id="${CSS.escape(focused)}"] .open`)?.focus();
}

function chatItem(chat) {
  const current = chat === shown;
  const item = element('li', {class: current ? 'current' : '', 'data-id': chat.id});
  const open = element('button', {
    type: 'button', class: 'open' + (runs.has(chat.id) ? ' running' : ''), title: chat.title,
    'aria-current': current ? 'true' : undefined,
    onclick: () => {
      showChat(chat);
      if (!closeDrawer() && matchMedia('(hover: hover)').matches) $('message').focus();
    },
  }, chat.title);
  item.append(open,
    iconButton('edit', 'Rename ' + chat.title, () => renameChat(chat, item)),
    iconButton('delete', 'Delete ' + chat.title, () => deleteChat(chat)));
  return item;
}

function renameChat(chat, item) {
  const input = element('input', {'aria-label': 'Name of the conversation', maxlength: '200'});
  input.value = chat.title;
  let ended = false;
  const end = (keep, focus) => {
    if (ended) return;
    ended = true;
    const title = input.value.trim();
    if (keep && title && title !== chat.title) {
      chat.title = title;
      saveChat(chat);
    }
    showChats();
    if (focus) $('chats').querySelector(`li[data-id="${CSS.escape(chat.id)}"] .open`)?.focus();
  };
  input.addEventListener('keydown', (event) => {
    if (event.isComposing || (event.key !== 'Enter' && event.key !== 'Escape')) return;
    event.stopPropagation();
    end(event.key === 'Enter', true);
  });
  input.addEventListener('blur', () => end(true, false));
  item.replaceChildren(input);
  input.select();
}

function deleteChat(chat) {
  stop(chat);
  const wasShown = chat === shown;
  chats.delete(chat.id);
  removeStored(kChatPrefix + chat.id);
  if (wasShown) showChat(null);
  else showChats();
  ($('chats').querySelector('.open') ?? $('new-chat')).focus();
  toast('The conversation was deleted.', 'Undo', () => {
    chats.set(chat.id, chat);
    saveChat(chat);
    if (wasShown) showChat(chat);
    else showChats();
  });
}

function startSidebar() {
  setSidebar(!kNarrow.matches && !settings.sideClosed, false);
  kNarrow.addEventListener('change', () => setSidebar(!kNarrow.matches && !settings.sideClosed, false));
  $('open-sidebar').onclick = () => {
    setSidebar(!isSidebarOpen());
    if (isSidebarOpen()) $('close-sidebar').focus();
  };
  $('close-sidebar').onclick = () => {
    setSidebar(false);
    $('open-sidebar').focus();
  };
  $('backdrop').onclick = closeDrawer;
  $('new-chat').onclick = () => {
    showChat(null);
    if (kNarrow.matches) setSidebar(false);
    $('message').focus();
  };
}
