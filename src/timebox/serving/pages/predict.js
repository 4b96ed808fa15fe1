// The page of `timebox serve`: sends pictures to /predict and shows what comes back.

const NUM_CLASSES_SHOWN = 5;   // bars of a picture
const MAX_BUTTONS = 8;         // classes up to which each has a button to correct with; a list beyond
const AT_ONCE = 4;             // requests in progress

const byId = id => document.getElementById(id);
const token = new URLSearchParams(location.search).get('token');
const percent = value => `${(100 * value).toFixed(1)} %`;
const shellQuoted = text => `'${text.replaceAll("'", String.raw`'\''`)}'`;
const waiting = [];
let model = null, numRunning = 0, numDone = 0, numAll = 0, stream = null;

async function ask(path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  for (;;) {
    let response;
    try {
      response = await fetch(path, body === undefined ? { headers } : { method: 'POST', headers, body });
    } catch {
      throw new Error('the server does not answer: was it stopped?');
    }
    if (response.status === 429) {
      await new Promise(done => setTimeout(done, 1000 * Number(response.headers.get('Retry-After') || 1)));
      continue;
    }
    const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
    if (!response.ok) throw new Error(answer.error);
    return answer;
  }
}

function showProblem(text) {
  byId('problem').textContent = text;
  byId('problem').hidden = !text;
}

function duration(seconds) {
  if (seconds >= 7200) return `${Math.round(seconds / 360) / 10} hours`;
  return seconds >= 120 ? `${Math.round(seconds / 6) / 10} minutes` : `${Math.round(seconds)} seconds`;
}

function showModel() {
  const facts = [`${model.classes.length} classes`];
  if (model.accuracy !== null) {
    const kind = model.accuracy_split === 'test' ? 'test' : 'validation';
    facts.push(`${percent(model.accuracy)} of ${model.num_images.toLocaleString('en')} ${kind} images right`);
  }
  if (model.budget_seconds !== null) facts.push(`trained in ${duration(model.budget_seconds)}`);
  if (!model.is_calibrated) facts.push('probabilities are not calibrated');
  byId('name').textContent = model.name;
  byId('facts').textContent = facts.join(' · ');
  document.title = `${model.name}: try the model`;
}

function showExamples() {
  const address = `${location.origin}/predict?top=3`;
  const header = token ? ` -H ${shellQuoted(`Authorization: Bearer ${token}`)}` : '';
  byId('curl').textContent = [
    `curl${header} --data-binary @photo.jpg '${address}'`,
    `curl${header} -F file=@one.jpg -F file=@two.jpg '${address}'`,
  ].join('\n');
  const sent = token ? `headers = {"Authorization": ${JSON.stringify(`Bearer ${token}`)}}` : 'headers = {}';
  byId('python').textContent = [
    'import json', 'from pathlib import Path', 'from urllib.request import Request, urlopen', '', sent,
    `request = Request("${address}", Path("photo.jpg").read_bytes(), headers)`,
    'for answer in json.load(urlopen(request))["predictions"]:',
    '    print(answer["label"], answer["probability"])',
  ].join('\n');
  if (token) byId('openapi').href = `/openapi.json?token=${encodeURIComponent(token)}`;
}

async function add(files) {
  const pictures = [...files];   // the browser empties the list of a drop
  if (!pictures.length || !await isReady) return;
  showProblem('');
  byId('results-section').hidden = false;
  const cards = pictures.map(newCard);
  byId('cards').prepend(...cards.map(card => card.element));
  waiting.push(...cards);
  numAll += cards.length;
  next();
}

function newCard(file) {
  const element = byId('card').content.firstElementChild.cloneNode(true);
  const part = name => element.querySelector(name);
  const { width, height, fit } = model.preprocessing;
  const name = file.name || 'picture';
  element.setAttribute('aria-label', name);
  part('.file').textContent = name;
  part('.file').title = name;
  part('.frame').style.aspectRatio = `${width} / ${height}`;
  part('.frame').classList.toggle('letterbox', fit.startsWith('the longer'));
  part('.picture').alt = name;
  part('.picture').src = URL.createObjectURL(file);
  return { file, element, part };
}

function next() {
  byId('progress').textContent = `${numDone} of ${numAll} done`;
  while (numRunning < AT_ONCE && waiting.length) {
    const card = waiting.shift();
    numRunning += 1;
    predict(card).finally(() => { numRunning -= 1; numDone += 1; next(); });
  }
}

async function predict(card) {
  try {
    const answer = await ask(`/predict?top=${NUM_CLASSES_SHOWN}`, card.file);
    card.label = answer.predictions[0].label;
    card.part('.state').textContent = `${answer.milliseconds.toFixed(0)} ms`;
    card.part('.bars').replaceChildren(...answer.predictions[0].top.map(bar));
    card.part('.explain').hidden = false;
    card.part('.explain').onclick = () => explain(card);
    if (model.feedback !== null) offerCorrection(card);
  } catch (error) {
    card.part('.state').textContent = error.message;
    card.part('.state').className = 'late state';
  }
}

function bar({ label, probability }) {
  const row = document.createElement('li');
  const cells = ['label', 'percent', 'track'].map(name => {
    const cell = document.createElement('span');
    cell.className = name;
    return cell;
  });
  cells[0].textContent = label;
  cells[0].title = label;
  cells[1].textContent = percent(probability);
  const filled = document.createElement('div');
  filled.className = 'bar';
  filled.style.width = `${100 * probability}%`;
  cells[2].append(filled);
  row.append(...cells);
  return row;
}

// Disables controls while a request runs, and gives the focus back that one of them had.
async function whileDisabled(controls, act) {
  const focused = document.activeElement;
  const disabled = controls.filter(control => !control.disabled);
  for (const control of disabled) control.disabled = true;
  try {
    return await act();
  } finally {
    for (const control of disabled) control.disabled = false;
    if (disabled.includes(focused)) focused.focus();
  }
}

// As above, for requests of a card: its note says how they end.
async function askFor(card, controls, act) {
  const note = card.part('.note');
  note.textContent = '';
  try {
    note.textContent = await whileDisabled(controls, act) ?? '';
  } catch (error) {
    note.textContent = error.message;
  }
}

function explain(card) {
  const button = card.part('.explain'), heat = card.part('.heat');
  return askFor(card, [button], async () => {
    if (!heat.getAttribute('src')) {
      const answer = await ask(`/explain?label=${encodeURIComponent(card.label)}`, card.file);
      heat.src = answer.heat_map;
      heat.alt = `What in the picture speaks for ${card.label}`;
    }
    heat.hidden = !heat.hidden;
    button.textContent = heat.hidden ? 'Show what decided' : 'Hide what decided';
  });
}

function newButton(text, act) {
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = text;
  button.onclick = act;
  return button;
}

function offerCorrection(card) {
  const row = card.part('.correct');
  card.earlier = [];   // for each correction, the class that the picture was saved as before it
  card.undo = newButton('Undo', () => undo(card));
  card.undo.className = 'undo';
  card.undo.hidden = true;
  row.hidden = false;
  row.append(Object.assign(document.createElement('span'), { textContent: 'Wrong? Save as' }));
  if (model.classes.length <= MAX_BUTTONS) {
    row.append(...model.classes.filter(name => name !== card.label).map(name => newButton(name, () => correct(card, name))));
  } else {
    // A list changes with each key; only the button saves.
    const list = document.createElement('select'), save = newButton('Save', () => correct(card, list.value));
    list.setAttribute('aria-label', 'Right class');
    list.append(new Option('choose …', ''), ...model.classes.map(name => new Option(name, name)));
    list.onchange = () => { save.disabled = !list.value; };
    save.disabled = true;
    row.append(list, save);
  }
  row.append(card.undo);
}

const controlsOf = card => [...card.part('.correct').querySelectorAll('button, select')];

function correct(card, label) {
  return askFor(card, controlsOf(card), async () => {
    const answer = await ask(`/feedback?label=${encodeURIComponent(label)}`, card.file);
    card.earlier.push(answer.previous);
    showCorrection(card, label);
    return `Saved as ${label}: ${answer.saved}`;
  });
}

async function undo(card) {
  await askFor(card, controlsOf(card), async () => {
    const label = card.earlier.at(-1);
    await ask(label === null ? '/feedback/undo' : `/feedback?label=${encodeURIComponent(label)}`, card.file);
    card.earlier.pop();
    showCorrection(card, label);
    return label === null ? 'No longer saved' : `Saved as ${label} again`;
  });
  if (card.undo.hidden) controlsOf(card)[0].focus();
}

function showCorrection(card, label) {
  card.undo.hidden = !card.earlier.length;
  for (const button of card.part('.correct').querySelectorAll('button:not(.undo)')) {
    if (button.textContent === label) button.setAttribute('aria-pressed', 'true');
    else button.removeAttribute('aria-pressed');
  }
}

function openCamera() {
  return whileDisabled([byId('open-camera')], async () => {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
      byId('video').srcObject = stream;
      await byId('video').play();
    } catch (error) {
      stopCamera();
      showProblem(navigator.mediaDevices ? `The camera cannot be used: ${error.message}`
        : 'The camera can be used at http://localhost only, or over https.');
      return;
    }
    showProblem('');
    for (const track of stream.getTracks()) track.onended = closeCamera;   // it was unplugged
    byId('camera').hidden = false;
  }).then(() => {
    if (byId('camera').hidden) return;
    byId('open-camera').disabled = true;
    byId('shoot').focus();
  });
}

function stopCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  byId('video').srcObject = null;
}

function closeCamera() {
  stopCamera();
  byId('camera').hidden = true;
  byId('open-camera').disabled = false;
  byId('open-camera').focus();
}

function takePicture() {
  return whileDisabled([byId('shoot')], async () => {
    const video = byId('video'), canvas = document.createElement('canvas');
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext('2d').drawImage(video, 0, 0);
    const blob = await new Promise(done => canvas.toBlob(done, 'image/jpeg', 0.95));
    if (!blob) { showProblem('The camera gives no picture.'); return; }
    await add([new File([blob], `camera ${new Date().toLocaleTimeString()}.jpg`, { type: 'image/jpeg' })]);
  });
}

function clear() {
  for (const image of document.querySelectorAll('.picture')) URL.revokeObjectURL(image.src);
  waiting.length = 0;
  numDone = 0;
  numAll = numRunning;
  byId('cards').replaceChildren();
  byId('results-section').hidden = true;
  byId('choose').focus();
}

function connect() {
  byId('choose').onclick = () => byId('files').click();
  byId('files').onchange = event => { add(event.target.files); event.target.value = ''; };
  byId('open-camera').onclick = openCamera;
  byId('close-camera').onclick = closeCamera;
  byId('shoot').onclick = takePicture;
  byId('clear').onclick = clear;
  document.addEventListener('paste', event => add(event.clipboardData.files));
  document.addEventListener('dragover', event => {
    event.preventDefault();
    byId('drop').classList.add('over');
  });
  document.addEventListener('dragleave', () => byId('drop').classList.remove('over'));
  document.addEventListener('drop', event => {
    event.preventDefault();
    byId('drop').classList.remove('over');
    add(event.dataTransfer.files);
  });
}

async function loadModel() {
  try {
    model = await ask('/model');
    showModel();
    showExamples();
    return true;
  } catch (error) {
    showProblem(error.message);
    return false;
  }
}

// Pictures that come before the model is known wait for it.
const isReady = loadModel();
connect();
