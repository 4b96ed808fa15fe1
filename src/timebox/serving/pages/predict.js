// The page of `timebox serve`: sends pictures to /predict and shows what comes back.

const NUM_CLASSES_SHOWN = 5;   // bars of a picture
const MAX_BUTTONS = 8;         // classes up to which each has a button to correct with; a list beyond
const AT_ONCE = 4;             // requests in progress

const byId = id => document.getElementById(id);
const token = new URLSearchParams(location.search).get('token');
const percent = value => `${(100 * value).toFixed(1)} %`;
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
  const header = token ? ` -H 'Authorization: Bearer ${token}'` : '';
  byId('curl').textContent = [
    `curl${header} --data-binary @photo.jpg '${address}'`,
    `curl${header} -F file=@one.jpg -F file=@two.jpg '${address}'`,
  ].join('\n');
  const sent = token ? `headers = {"Authorization": "Bearer ${token}"}` : 'headers = {}';
  byId('python').textContent = [
    'import json', 'from pathlib import Path', 'from urllib.request import Request, urlopen', '', sent,
    `request = Request("${address}", Path("photo.jpg").read_bytes(), headers)`,
    'for answer in json.load(urlopen(request))["predictions"]:',
    '    print(answer["label"], answer["probability"])',
  ].join('\n');
  if (token) byId('openapi').href = `/openapi.json?token=${encodeURIComponent(token)}`;
}

function add(files) {
  const pictures = [...files];
  if (!pictures.length) return;
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

async function explain(card) {
  const button = card.part('.explain'), heat = card.part('.heat'), note = card.part('.note');
  const isShown = !heat.hidden;
  if (!heat.getAttribute('src')) {
    button.disabled = true;
    try {
      const answer = await ask(`/explain?label=${encodeURIComponent(card.label)}`, card.file);
      heat.src = answer.heat_map;
      heat.alt = `What in the picture speaks for ${card.label}`;
    } catch (error) {
      note.textContent = error.message;
      return;
    } finally {
      button.disabled = false;
    }
  }
  heat.hidden = isShown;
  button.setAttribute('aria-pressed', String(!isShown));
  button.textContent = isShown ? 'Show what decided' : 'Hide what decided';
}

function offerCorrection(card) {
  const row = card.part('.correct');
  row.hidden = false;
  row.append('Wrong? Save as ');
  if (model.classes.length <= MAX_BUTTONS) {
    for (const label of model.classes.filter(name => name !== card.label)) {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = label;
      button.onclick = () => correct(card, label);
      row.append(button);
    }
    return;
  }
  const list = document.createElement('select');
  list.setAttribute('aria-label', 'Right class');
  list.append(new Option('choose …', ''), ...model.classes.map(name => new Option(name, name)));
  list.onchange = () => { if (list.value) correct(card, list.value); };
  row.append(list);
}

async function correct(card, label) {
  const note = card.part('.note');
  try {
    const answer = await ask(`/feedback?label=${encodeURIComponent(label)}`, card.file);
    note.textContent = `Saved as ${label}: ${answer.saved}`;
    for (const button of card.part('.correct').querySelectorAll('button')) {
      button.setAttribute('aria-pressed', String(button.textContent === label));
    }
  } catch (error) {
    note.textContent = error.message;
  }
}

async function openCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  } catch (error) {
    showProblem(navigator.mediaDevices ? `The camera cannot be used: ${error.message}`
      : 'The camera can be used at http://localhost only, or over https.');
    return;
  }
  showProblem('');
  byId('video').srcObject = stream;
  await byId('video').play();
  byId('camera').hidden = false;
  byId('open-camera').disabled = true;
  byId('shoot').focus();
}

function closeCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  byId('camera').hidden = true;
  byId('open-camera').disabled = false;
  byId('open-camera').focus();
}

function takePicture() {
  const video = byId('video'), canvas = document.createElement('canvas');
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext('2d').drawImage(video, 0, 0);
  const name = `camera ${new Date().toLocaleTimeString()}.jpg`;
  canvas.toBlob(blob => add([new File([blob], name, { type: 'image/jpeg' })]), 'image/jpeg', 0.95);
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

try {
  model = await ask('/model');
  showModel();
  showExamples();
  connect();
} catch (error) {
  showProblem(error.message);
}
