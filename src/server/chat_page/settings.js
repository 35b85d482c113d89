// The settings, their dialog, the theme, and the dialog that asks for a key.

const settings = {system: '', theme: '', sideClosed: false, ...readStored(kSettingsKey, {})};

function saveSettings() {
  writeStored(kSettingsKey, settings);
}

/** The fields of a request that the settings give: those whose value makes sense. */
function samplingSettings() {
  const sampling = {};
  for (const name of kNumberSettings) if (typeof settings[name] === 'number') sampling[name] = settings[name];
  return sampling;
}

function applyTheme() {
  if (settings.theme) document.documentElement.dataset.theme = settings.theme;
  else delete document.documentElement.dataset.theme;
}

function isDark() {
  return settings.theme ? settings.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
}

function switchTheme() {
  settings.theme = isDark() ? 'light' : 'dark';
  applyTheme();
  saveSettings();
  announce(settings.theme === 'dark' ? 'Dark' : 'Light');
}

function showSettings() {
  $('system').value = settings.system;
  $('theme').value = settings.theme;
  for (const name of kNumberSettings) $(name).value = settings[name] ?? '';
  $('key-setting').hidden = !apiKey;
  $('settings').showModal();
}

function readSettings() {
  settings.system = $('system').value;
  settings.theme = $('theme').value;
  for (const name of kNumberSettings) {
    const field = $(name);
    if (field.value !== '' && field.validity.valid) settings[name] = field.valueAsNumber;
    else if (field.validity.valid && !field.validity.badInput) delete settings[name];
  }
  applyTheme();
  saveSettings();
}

function resetSettings() {
  for (const name of kNumberSettings) delete settings[name];
  settings.system = '';
  settings.theme = '';
  $('settings').close();
  applyTheme();
  saveSettings();
  toast('The settings are as they were at first.');
}

/** Asks until the server takes a key, or the person gives up. */
function askForKey(message = '') {
  const dialog = $('key-dialog');
  if (dialog.open) return;
  $('key').value = '';
  $('key-error').textContent = message;
  $('key-form').onsubmit = async (event) => {
    event.preventDefault();
    apiKey = $('key').value.trim();
    try {
      showModel(await modelName());
    } catch (error) {
      $('key-error').textContent = error.status === 401 ? 'The server does not take this key.' : error.message;
      $('key').select();
      return;
    }
    writeKey(apiKey, $('keep-key').checked);
    dialog.close();
  };
  dialog.showModal();
}

function showModel(name) {
  $('model').textContent = name;
  document.title = name + ' – Lanner';
}

async function findModel() {
  try {
    showModel(await modelName());
  } catch (error) {
    if (error.status === 401) askForKey();
    else toast(error.message);
  }
}

function startSettings() {
  applyTheme();
  $('open-settings').onclick = showSettings;
  $('settings').addEventListener('input', readSettings);
  $('settings').querySelector('form').noValidate = true;
  $('settings').querySelector('form').onsubmit = readSettings;
  $('reset-settings').onclick = resetSettings;
  $('switch-theme').onclick = switchTheme;
  $('change-key').onclick = () => {
    $('settings').close();
    askForKey();
  };
  $('cancel-key').onclick = () => $('key-dialog').close();
  for (const dialog of document.querySelectorAll('dialog')) {
    dialog.addEventListener('click', (event) => {
      if (event.target === dialog) dialog.close();  // beside the form
    });
  }
}
