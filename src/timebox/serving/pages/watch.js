// The page of `timebox watch`: draws what /events sends.

const MAX_POINTS = 600;          // of a curve
const RETRY_SECONDS = 3;
const HEIGHT = 150, LEFT = 52, RIGHT = 8, TOP = 8, BOTTOM = 24;   // of a chart, in pixels

const byId = id => document.getElementById(id);
const token = new URLSearchParams(location.search).get('token');
const withToken = path => (token ? `${path}?token=${encodeURIComponent(token)}` : path);
const isOver = () => ENDS.includes(state.phase);
const percent = value => `${(100 * value).toFixed(1)} %`;
const PHASES = {
  waiting: 'waiting for the training to begin', planning: 'reading the data and planning', training: 'training', scoring: 'scoring and saving', done: 'done',
  stopped: 'stopped; it can be resumed', killed: 'the process has ended without finishing; it can be resumed',
  nothing: 'the training has ended before anything was kept; its own output says why',
};
const ENDS = ['done', 'stopped', 'killed', 'nothing'];
let steps = [], validations = [], trials = [], state = {}, leftAt = null, speedFrom = null, shownStatus = null;

function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const text = parts.map(part => String(part).padStart(2, '0'));
  return parts[0] ? `${parts[0]}:${text[1]}:${text[2]}` : `${parts[1]}:${text[2]}`;
}

function receive(event) {
  const news = JSON.parse(event.data);
  if (news.restarted) forget();
  for (const line of news.lines) takeLine(line, news.kind ?? state.kind);
  state = { ...state, ...news };
  leftAt = state.seconds_left === null ? null : Date.now() + 1000 * state.seconds_left;
  show();
}

function forget() {
  steps = []; validations = []; trials = []; speedFrom = null; shownStatus = null;
  for (const id of ['plan', 'examples']) byId(id).replaceChildren();
  for (const id of ['plan-section', 'examples-section']) byId(id).hidden = true;
  byId('speed').textContent = '–';
  byId('accuracy-text').textContent = 'accuracy on validation images';
}

function takeLine(line, kind) {
  if (kind !== 'training') trials.push(line);
  else if (line.rolled_back) {
    steps = steps.filter(one => one.step <= line.step);
    validations = validations.filter(one => one.step <= line.step);
  } else if (line.val_accuracy !== undefined) validations.push(line);
  else if (line.loss !== undefined) steps.push(line);
}

function show() {
  const isTraining = state.kind === 'training', last = steps.at(-1);
  byId('name').textContent = state.name;
  document.title = `${state.name}: ${PHASES[state.phase]}`;
  byId('facts').textContent = facts().join(' · ');
  byId('state').hidden = ['waiting', 'nothing'].includes(state.phase) || !isTraining;
  byId('end').hidden = !(isOver() && state.report);
  byId('report').href = withToken('/report');
  showNumbers(last);
  byId('curves').hidden = !isTraining || steps.length < 2;
  byId('accuracy-chart').parentElement.hidden = !validations.length;
  draw('loss-chart', points(steps, 'loss'), { smooth: true });
  draw('accuracy-chart', points(validations, 'val_accuracy'), { form: percent, dots: true });
  draw('lr-chart', points(steps, 'lr'), { fromZero: true });
  showTrials(isTraining);
  if (state.status) showStatus(state.status);
}

function facts() {
  const status = state.status ?? shownStatus, list = [PHASES[state.phase]];
  if (state.kind !== 'training') list.unshift(`a ${state.kind}`, `${trials.length} trials`);
  if (status) {
    list.push(`${status.train_images.toLocaleString('en')} images`, `${status.num_classes} classes`);
    if (status.device) list.push(status.device);
    if (status.budget_seconds !== null && !isOver()) list.push(`budget ${duration(status.budget_seconds)}`);
  }
  return list;
}

function showNumbers(last) {
  const summary = state.summary, progress = isOver() && state.phase === 'done' ? 1 : last?.progress ?? 0;
  byId('bar').style.width = `${100 * progress}%`;
  byId('track').setAttribute('aria-valuenow', Math.round(100 * progress));
  byId('loss').textContent = last ? last.loss.toFixed(3) : '–';
  byId('epoch').textContent = last?.epoch !== undefined ? last.epoch.toFixed(1) : '–';
  const scored = summary?.test_accuracy ?? summary?.val_accuracy ?? null, validated = validations.at(-1)?.val_accuracy;
  byId('accuracy').textContent = scored !== null ? percent(scored) : validated !== undefined ? percent(validated) : '–';
  if (scored !== null) {
    const isTest = summary.test_accuracy !== null, number = isTest ? summary.test_images : summary.val_images;
    const many = number === null ? '' : `${number.toLocaleString('en')} `;
    byId('accuracy-text').textContent = `accuracy on ${many}${isTest ? 'test' : 'validation'} images`;
  }
  showSpeed(last, summary);
  showLeft();
}

function showSpeed(last, summary) {
  if (summary?.images_per_second) { byId('speed').textContent = Math.round(summary.images_per_second).toLocaleString('en'); return; }
  if (!last || isOver() || !state.status) return;
  speedFrom ??= { at: Date.now(), epoch: last.epoch };
  const seconds = (Date.now() - speedFrom.at) / 1000;
  if (seconds > 2 && last.epoch > speedFrom.epoch) {
    byId('speed').textContent = Math.round((last.epoch - speedFrom.epoch) * state.status.train_images / seconds).toLocaleString('en');
  }
}

function showLeft() {
  const used = state.summary?.elapsed_seconds;
  if (isOver()) {
    byId('left').textContent = used ? duration(used) : '–';
    const budget = state.summary?.budget_seconds, of = budget ? ` of ${duration(budget)}` : '';
    byId('left-text').textContent = `used${of}${state.summary?.late ? ': late' : ''}`;
  } else {
    byId('left').textContent = leftAt === null ? '–' : duration((leftAt - Date.now()) / 1000);
    byId('left-text').textContent = leftAt === null ? 'no deadline' : 'left';
  }
}

function points(lines, key) {
  const all = lines.map(line => [line.step, line[key]]).filter(point => Number.isFinite(point[1]));
  const stride = Math.max(1, Math.ceil(all.length / MAX_POINTS));
  return all.filter((_, index) => index % stride === 0 || index === all.length - 1);
}

function smoothed(curve) {
  let mean = curve[0]?.[1], kept = 1 - 1 / Math.max(1, curve.length / 25);
  return curve.map(([x, y]) => [x, mean = kept * mean + (1 - kept) * y]);
}

function element(name, attributes, text) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function draw(id, curve, { form = value => Number(value.toPrecision(2)).toString(), smooth = false, dots = false, fromZero = false }) {
  const chart = byId(id), chartWidth = chart.clientWidth;
  if (!curve.length || !chartWidth) { chart.replaceChildren(); return; }
  chart.setAttribute('viewBox', `0 0 ${chartWidth} ${HEIGHT}`);
  const right = chartWidth - RIGHT;
  const values = curve.map(point => point[1]), first = curve[0][0], width = Math.max(1, curve.at(-1)[0] - first);
  const low = fromZero ? 0 : Math.min(...values), high = Math.max(...values), range = high - low || 1;
  const x = step => LEFT + (step - first) / width * (right - LEFT);
  const y = value => TOP + (1 - (value - low) / range) * (HEIGHT - TOP - BOTTOM);
  const path = line => line.map(point => `${x(point[0]).toFixed(1)},${y(point[1]).toFixed(1)}`).join(' ');
  const parts = [0, 0.5, 1].flatMap(share => {
    const value = low + share * range;
    return [element('line', { class: 'grid', x1: LEFT, x2: right, y1: y(value), y2: y(value) }),
      element('text', { class: 'end', x: LEFT - 6, y: y(value) + 4 }, form(value))];
  });
  parts.push(element('text', { x: LEFT, y: HEIGHT - 6 }, first), element('text', { class: 'end', x: right, y: HEIGHT - 6 }, curve.at(-1)[0]));
  if (smooth) parts.push(element('polyline', { class: 'raw', points: path(curve) }));
  parts.push(element('polyline', { class: 'line', points: path(smooth ? smoothed(curve) : curve) }));
  if (dots) parts.push(...curve.map(point => element('circle', { r: 3, cx: x(point[0]), cy: y(point[1]) })));
  chart.replaceChildren(...parts);
}

function showTrials(isTraining) {
  byId('trials-section').hidden = isTraining || !trials.length;
  const best = Math.max(...trials.map(trial => trial.accuracy ?? -1));
  byId('trials').replaceChildren(...trials.map((trial, index) => {
    const row = document.createElement('tr');
    row.className = trial.accuracy === best ? 'best' : '';
    const what = trial.label ?? ((trial.settings ?? []).join(' ') || 'the recipe itself');
    const result = trial.accuracy === undefined ? trial.failed ?? trial.reason ?? trial.state ?? '–' : percent(trial.accuracy);
    const seed = trial.seed === undefined ? '' : ` (seed ${trial.seed})`;
    for (const [text, kind] of [[index + 1, ''], [what + seed, ''], [result, 'n']]) {
      const cell = document.createElement('td');
      cell.textContent = text;
      cell.className = kind;
      row.append(cell);
    }
    return row;
  }));
}

function showStatus(status) {
  if (status === shownStatus) return;
  shownStatus = status;
  byId('plan-section').hidden = !status.plan.length;
  byId('plan').replaceChildren(...status.plan.map(line => Object.assign(document.createElement('li'), { textContent: line })));
  byId('examples-section').hidden = !status.examples.length;
  byId('examples').replaceChildren(...status.examples.map(([label, source]) => {
    const figure = document.createElement('figure'), image = new Image();
    image.src = source;
    image.alt = label;
    if (source.startsWith('data:image/png')) image.className = 'small';
    figure.append(image, Object.assign(document.createElement('figcaption'), { textContent: label }));
    return figure;
  }));
}

function showProblem(text) {
  byId('problem').textContent = text;
  byId('problem').hidden = !text;
}

function connect() {
  const source = new EventSource(withToken('/events'));
  source.onmessage = receive;
  source.onopen = () => { showProblem(''); forget(); };
  source.onerror = async () => {
    if (isOver()) {
      source.close();
      byId('end').hidden = true;
      showProblem(state.report ? 'The page has ended with the training. The report lies in its directory.' : 'The page has ended with the training.');
      return;
    }
    showProblem('The server does not answer; trying again.');
    if (source.readyState !== EventSource.CLOSED) return;
    // Any answer but 200 ends a source for good: say what it was, and begin another one.
    const answer = await fetch(withToken('/state')).catch(() => null);
    if (answer && !answer.ok) showProblem(`The server refuses: ${(await answer.json().catch(() => ({}))).error ?? `status ${answer.status}`}`);
    setTimeout(connect, 1000 * RETRY_SECONDS);
  };
}

connect();
setInterval(showLeft, 1000);
window.addEventListener('resize', () => { if (state.kind) show(); });
