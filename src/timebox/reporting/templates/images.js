// The report's browser of images, the thresholds of the classes, and the confusion matrix that filters the images.
"use strict";
(() => {
const PAGE = 120; // tiles that are added at once
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("images-data").textContent);
const thumbnails = JSON.parse(byId("thumbnails-data").textContent);
const { classes, files, numTop } = data;
const decode = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
const Indices = data.indexBits === 16 ? Uint16Array : Uint32Array;
const labels = new Indices(decode(data.labels));
const topClasses = new Indices(decode(data.topClasses));
const topProbabilities = new Float32Array(decode(data.topProbabilities));
const losses = new Float32Array(decode(data.losses));
const predicted = (i) => topClasses[i * numTop];
const confidence = (i) => topProbabilities[i * numTop];
const isError = (i) => predicted(i) !== labels[i];
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
const everyImage = files.map((_, i) => i);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// ---- pictures ----

const KINDS = { UklG: "webp", "/9j/": "jpeg", iVBO: "png" }; // by the first bytes, in base64

function thumbnail(i) {
  return thumbnails[i] && `data:image/${KINDS[thumbnails[i].slice(0, 4)]};base64,${thumbnails[i]}`;
}

// The file itself, where the page was opened from the disk that the data lie on.
function original(i) {
  if (!data.folderUrl || location.protocol !== "file:") return null;
  try {
    return `${data.folderUrl}/${files[i].split("/").map(encodeURIComponent).join("/")}`;
  } catch {
    return null; // a name that is not Unicode
  }
}

// Show the first of these addresses that loads; without any, call `without`.
function showFirst(image, addresses, without) {
  const [address, ...others] = addresses.filter(Boolean);
  if (!address) return without();
  image.onerror = () => showFirst(image, others, without);
  image.src = address;
}

function path(i) {
  if (!data.folder) return files[i];
  const separator = data.folder.includes("\\") ? "\\" : "/";
  return data.folder + separator + files[i].replaceAll("/", separator);
}

// ---- which images are shown ----

const controls = {
  show: byId("show"), label: byId("true-class"), predicted: byId("predicted-class"),
  sort: byId("sort"), file: byId("file-filter"),
};
const byNumber = (key) => (a, b) => key(a) - key(b) || a - b;
const ORDERS = {
  "most-confident": byNumber((i) => -confidence(i)),
  "least-confident": byNumber(confidence),
  "highest-loss": byNumber((i) => -losses[i]),
  "lowest-loss": byNumber((i) => losses[i]),
  file: (a, b) => files[a].localeCompare(files[b], undefined, { numeric: true }) || a - b,
};
const SHOWN = {
  errors: isError,
  correct: (i) => !isError(i),
  all: () => true,
  below: (i) => confidence(i) < thresholds[predicted(i)],
};
let thresholds = classes.map(() => 0);
let rows = [];
let numTiles = 0;
const list = byId("image-list");

function filterImages() {
  const label = controls.label.value, guess = controls.predicted.value, words = controls.file.value.toLowerCase();
  rows = everyImage
    .filter((i) => (!label || labels[i] === Number(label)) && (!guess || predicted(i) === Number(guess)))
    .filter((i) => SHOWN[controls.show.value](i) && (!words || files[i].toLowerCase().includes(words)))
    .sort(ORDERS[controls.sort.value]);
  list.replaceChildren();
  numTiles = 0;
  addTiles();
  byId("image-count").textContent = `${rows.length.toLocaleString("en")} of ${files.length.toLocaleString("en")} images`;
  byId("export-images").disabled = !rows.length;
}

function addTiles() {
  const next = rows.slice(numTiles, numTiles + PAGE);
  list.append(...next.map((i, k) => tile(i, numTiles + k)));
  numTiles += next.length;
  byId("more-images").hidden = numTiles >= rows.length;
}

function tile(i, position) {
  const image = element("img", { alt: "", loading: "lazy", decoding: "async", width: 92, height: 92 });
  const button = element("button", { type: "button", className: "tile", title: files[i] }, image);
  const without = () => image.replaceWith(element("span", { className: "without", textContent: "no picture" }));
  image.onload = () => image.classList.toggle("small", image.naturalWidth <= 48);
  showFirst(image, [thumbnail(i), original(i)], without);
  button.append(element("b", { textContent: classes[predicted(i)] }), ` ${percent(confidence(i), 0)}`);
  if (isError(i)) button.append(element("br"), `true: ${classes[labels[i]]}`);
  button.tabIndex = position === 0 ? 0 : -1;
  button.onclick = () => openDetail(position);
  return element("li", {}, button);
}

function setFilters(values) {
  for (const [name, value] of Object.entries(values)) controls[name].value = value;
  filterImages();
}

const hasErrors = everyImage.some(isError);
const START = { show: hasErrors ? "errors" : "all", label: "", predicted: "", file: "", sort: hasErrors ? "most-confident" : "least-confident" };

// ---- moving among the tiles with the keyboard: one of them can be reached by Tab ----

function focusTile(position) {
  while (position >= numTiles && numTiles < rows.length) addTiles();
  const target = list.children[Math.max(0, Math.min(position, rows.length - 1))]?.firstChild;
  if (!target) return;
  list.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
  target.tabIndex = 0;
  target.focus();
}

list.addEventListener("keydown", (event) => {
  const items = [...list.children], position = items.indexOf(event.target.closest("li"));
  const inRow = items.findIndex((item) => item.offsetTop > items[0].offsetTop);
  const columns = inRow < 0 ? items.length : inRow;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -position, End: rows.length };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const target = position + steps[event.key];
  if (event.key === "End" || (target >= 0 && target < rows.length)) focusTile(Math.min(target, rows.length - 1));
});

// ---- one image, enlarged ----

const detail = byId("image-detail");
let current = 0; // position among the rows

function openDetail(position) {
  current = position;
  const i = rows[position], image = byId("detail-image"), without = byId("detail-without");
  without.hidden = true;
  image.hidden = false;
  image.alt = files[i];
  image.onload = () => image.classList.toggle("small", image.naturalWidth <= 48);
  showFirst(image, [original(i), thumbnail(i)], () => {
    image.hidden = true;
    without.hidden = false;
  });
  byId("detail-title").textContent = files[i];
  byId("detail-classes").replaceChildren(
    "predicted ", element("b", { textContent: classes[predicted(i)], className: isError(i) ? "bad" : "good" }),
    ", true class ", element("b", { textContent: classes[labels[i]] }));
  byId("detail-top").replaceChildren(...Array.from({ length: numTop }, (_, k) => topClass(i, k)));
  byId("detail-loss").textContent = `loss ${losses[i].toPrecision(3)}`;
  byId("detail-path").value = path(i);
  byId("copy-path").textContent = "Copy path";
  byId("detail-position").textContent = `${(position + 1).toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
  byId("previous-image").disabled = position === 0;
  byId("next-image").disabled = position === rows.length - 1;
  if (!detail.open) detail.showModal();
}

function topClass(i, k) {
  const probability = topProbabilities[i * numTop + k], index = topClasses[i * numTop + k];
  const bar = element("i", { className: "bar" });
  bar.style.width = percent(probability);
  const name = element("span", { textContent: classes[index], className: index === labels[i] ? "is-true" : "" });
  return element("li", {}, name, element("span", { className: "n", textContent: percent(probability) }), element("span", { className: "track" }, bar));
}

function step(by) {
  if (current + by >= 0 && current + by < rows.length) openDetail(current + by);
}

async function copy(text, button) {
  const label = button.dataset.label ?? button.textContent;
  button.dataset.label = label;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = copyBySelection(text) ? "Copied" : "Not allowed by the browser";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
}

// Where the page may not use the clipboard directly.
function copyBySelection(text) {
  const area = element("textarea", { value: text, className: "off-screen" });
  (detail.open ? detail : document.body).append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

detail.addEventListener("close", () => focusTile(current));
detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });
detail.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowRight") step(1);
  else if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "c") copy(path(rows[current]), byId("copy-path"));
  else return;
  event.preventDefault();
});
byId("close-detail").onclick = () => detail.close();
byId("previous-image").onclick = () => step(-1);
byId("next-image").onclick = () => step(1);
byId("copy-path").onclick = (event) => copy(path(rows[current]), event.currentTarget);

// ---- export ----

function csv() {
  const further = Array.from({ length: numTop - 1 }, (_, k) => k + 1);
  const head = ["file", "label", "predicted", "probability", "loss", ...further.flatMap((k) => [`predicted_${k + 1}`, `probability_${k + 1}`])];
  const line = (i) => [
    path(i), classes[labels[i]], classes[predicted(i)], confidence(i).toPrecision(6), losses[i].toPrecision(6),
    ...further.flatMap((k) => [classes[topClasses[i * numTop + k]], topProbabilities[i * numTop + k].toPrecision(6)]),
  ];
  return [head, ...rows.map(line)].map((values) => values.map(csvField).join(",") + "\n").join("");
}

// An apostrophe stands before what a spreadsheet would take for a formula, as in the CSV of the command line.
const FORMULA = /^['\t\r\n]|^[\p{Z}\p{C}\p{M}\u115f\u1160\u2800\u3164\uffa0]*[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212]/u;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

function csvField(value) {
  const safe = FORMULA.test(value) && !NUMBER.test(value) ? `'${value}` : value;
  return /[,;\t\r\n"|]|^\s|\s$/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

byId("export-images").onclick = () => {
  const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
  const link = element("a", { href: address, download: rows.every(isError) ? "mistakes.csv" : "images.csv" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
};

// ---- the confusion matrix and the table of confusions ----

function showConfusion(target) {
  setFilters({ ...START, show: "all", label: target.dataset.label, predicted: target.dataset.predicted });
  byId("images").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  focusTile(0);
}

for (const link of document.querySelectorAll("button.link[data-label]")) link.onclick = () => showConfusion(link);

const matrix = document.querySelector(".matrix svg");
if (matrix) makeMatrixClickable();

function makeMatrixClickable() {
  const cells = [...matrix.querySelectorAll("rect[data-label]")];
  const at = new Map(cells.map((cell) => [`${cell.dataset.label},${cell.dataset.predicted}`, cell]));
  matrix.setAttribute("role", "group");
  for (const cell of cells) {
    cell.setAttribute("role", "button");
    cell.setAttribute("tabindex", "-1");
    cell.setAttribute("aria-label", cell.querySelector("title").textContent);
  }
  cells[0]?.setAttribute("tabindex", "0");
  matrix.addEventListener("click", (event) => {
    const cell = event.target.closest("rect[data-label]");
    if (cell) showConfusion(cell);
  });
  matrix.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    if (event.key === "Enter" || event.key === " ") showConfusion(event.target);
    else if (event.key in moves) moveTo(event.target, nearest(event.target, ...moves[event.key]));
    else return;
    event.preventDefault();
  });

  // The next cell with images in this direction: empty cells are not drawn.
  function nearest(cell, down, right) {
    let row = Number(cell.dataset.label) + down, column = Number(cell.dataset.predicted) + right;
    for (; row >= 0 && column >= 0 && row < classes.length && column < classes.length; row += down, column += right) {
      if (at.has(`${row},${column}`)) return at.get(`${row},${column}`);
    }
    return cell;
  }

  function moveTo(from, to) {
    from.setAttribute("tabindex", "-1");
    to.setAttribute("tabindex", "0");
    to.focus();
  }
}

// ---- thresholds ----

// The lowest threshold for the predictions of one class, most confident first, with at least the wanted precision.
function lowestThreshold(members, wanted) {
  let numRight = 0, best = { threshold: Infinity, accepted: 0, right: 0 };
  members.forEach((i, k) => {
    numRight += isError(i) ? 0 : 1;
    const isLastOfItsConfidence = k + 1 === members.length || confidence(members[k + 1]) < confidence(i);
    if (isLastOfItsConfidence && numRight / (k + 1) >= wanted) {
      const below = k + 1 === members.length ? -1 : confidence(members[k + 1]);
      best = { threshold: shortestBetween(below, confidence(i)), accepted: k + 1, right: numRight };
    }
  });
  return best;
}

// The number with the fewest digits that is above the first and at most the second.
function shortestBetween(below, most) {
  for (let scale = 1; scale <= 1e7; scale *= 10) {
    const rounded = Math.floor(most * scale) / scale;
    if (rounded > below) return rounded;
  }
  return most;
}

function showThresholds() {
  const wanted = Number(byId("wanted-precision").value) / 100;
  if (!(wanted > 0 && wanted <= 1)) return;
  const members = classes.map(() => []), numOfClass = new Array(classes.length).fill(0);
  for (const i of [...everyImage].sort(ORDERS["most-confident"])) {
    members[predicted(i)].push(i);
    numOfClass[labels[i]] += 1;
  }
  const found = members.map((ofClass) => lowestThreshold(ofClass, wanted));
  thresholds = found.map((one) => one.threshold);
  byId("threshold-rows").replaceChildren(...found.map((one, k) => thresholdRow(one, members[k].length, numOfClass[k], k)));
  const accepted = found.reduce((sum, one) => sum + one.accepted, 0), right = found.reduce((sum, one) => sum + one.right, 0);
  byId("threshold-total").textContent =
    `${percent(accepted / files.length)} of the images accepted${accepted ? `, ${percent(right / accepted)} of them right` : ""}`;
}

function thresholdRow(one, numPredicted, numOfClass, k) {
  const number = (text) => element("td", { className: "n", textContent: text });
  const text = numPredicted === 0 ? "never predicted" : one.accepted === 0 ? "not reached" : String(one.threshold);
  return element("tr", {}, element("td", { textContent: classes[k] }), number(text), number(`${one.accepted} of ${numPredicted}`),
    number(one.accepted ? percent(one.right / one.accepted) : "–"), number(numOfClass ? percent(one.right / numOfClass) : "–"));
}

if (byId("thresholds")) {
  controls.show.append(element("option", { value: "below", textContent: "below the threshold of their class" }));
  byId("wanted-precision").oninput = () => {
    showThresholds();
    if (controls.show.value === "below") filterImages();
  };
  // A class that cannot reach the precision accepts nothing: no probability exceeds 1.
  const limit = (threshold) => (threshold === Infinity ? 1.01 : threshold);
  byId("copy-thresholds").onclick = (event) =>
    copy(JSON.stringify(Object.fromEntries(classes.map((name, k) => [name, limit(thresholds[k])])), null, 2), event.currentTarget);
  showThresholds();
}

// ---- start ----

for (const select of [controls.label, controls.predicted]) {
  select.append(...classes.map((name, k) => element("option", { value: k, textContent: name })));
}
for (const control of Object.values(controls)) {
  control.addEventListener(control === controls.file ? "input" : "change", filterImages);
}
byId("reset-filters").onclick = () => setFilters(START);
byId("more-images").onclick = () => { const first = numTiles; addTiles(); focusTile(first); };
new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) addTiles(); }, { rootMargin: "600px" })
  .observe(byId("more-images"));
setFilters(START);
})();
