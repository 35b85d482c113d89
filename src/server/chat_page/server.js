// Calls to the server: the model's name, and an answer as it comes.

let apiKey = readKey();

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function callHeaders() {
  return {'Content-Type': 'application/json', ...(apiKey ? {Authorization: 'Bearer ' + apiKey} : {})};
}

async function call(path, options) {
  let reply;
  try {
    reply = await fetch(path, {...options, headers: callHeaders(), cache: 'no-store', credentials: 'omit'});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused(0, 'The server cannot be reached.');
  }
  if (reply.ok) return reply;
  let message = '';
  try {
    message = (await reply.json()).error.message;
  } catch {
    // not an answer of this server: its status says what there is to say
  }
  const wait = Number(reply.headers.get('Retry-After'));
  if (reply.status === 429) message = `The server is busy. Try again ${wait > 1 ? `in ${wait} seconds` : 'in a moment'}.`;
  throw new Refused(reply.status, String(message || 'The server answered with status ' + reply.status + '.'));
}

async function modelName() {
  const list = await (await call('/v1/models')).json();
  return String(list.data[0].id);
}

/** What is sent of a conversation. Two messages of one role in a row, as a stopped answer may leave them, become one. */
function promptOf(messages, system) {
  const sent = system.trim() ? [{role: 'system', content: system}] : [];
  for (const {role, content} of messages) {
    if (content === '') continue;
    if (sent.at(-1)?.role === role) sent.at(-1).content += '\n\n' + content;
    else sent.push({role, content});
  }
  return sent;
}

function broken(error) {
  throw error.name === 'AbortError' ? error : new Refused(0, 'The connection broke before the answer was complete.');
}

/** The values of "data:" lines of a body, as they come. */
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const {value, done} = await reader.read().catch(broken);
      if (done) return;
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      for (const line of lines) if (line.startsWith('data:')) yield line.slice(5).trim();
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Asks for an answer and calls onpart({text, thinking}) for each part of it. Returns {ended, tokens}: why it
 * ended, and the count of its tokens where the server said it.
 */
async function streamAnswer(messages, sampling, signal, onpart) {
  const reply = await call('/v1/chat/completions', {
    method: 'POST',
    signal,
    body: JSON.stringify({messages, ...sampling, stream: true, stream_options: {include_usage: true}}),
  });
  const result = {ended: '', tokens: 0};
  for await (const data of eventsOf(reply.body)) {
    if (data === '[DONE]') return result;
    const event = JSON.parse(data);
    if (event.error) throw new Refused(500, String(event.error.message));
    if (event.usage) result.tokens = event.usage.completion_tokens;
    const choice = event.choices?.[0];
    if (!choice) continue;
    if (choice.finish_reason) result.ended = choice.finish_reason;
    const text = choice.delta?.content ?? '';
    const thinking = choice.delta?.reasoning_content ?? '';
    if (text || thinking) onpart({text, thinking});
  }
  return broken(new Error());
}
