"""How pages look: one sheet for all, light and dark, wide and narrow."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f6f3; --card: #ffffff; --ink: #1d2126; --soft: #626b76; --line: #e3e3de; --accent: #2563c9;
  --second: #c2570c; --good: #1a7f4b; --bad: #c0392b; --empty: #ececea;
  --p0: #2563c9; --p1: #7c9fdc; --p2: #0f9d8f; --p3: #e0a526; --p4: #c2570c; --p5: #8b5fbf; --p6: #5b8c3a; --p7:
  #9aa1aa;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1d2126; --ink: #e8eaed; --soft: #9aa4b0; --line: #31373f; --accent: #7aa8ff;
    --second: #ffab70; --good: #5fcf94; --bad: #ff8a7a; --empty: #2a2f36;
    --p0: #7aa8ff; --p1: #49679c; --p2: #3fc9ba; --p3: #e9bd57; --p4: #ffab70; --p5: #b797e3; --p6: #93c46f; --p7:
  #6d7682;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto,
  "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
header { margin-bottom: 20px; }
h1 { font-size: 22px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 0 0 12px; }
h3 { font-size: 13px; margin: 0 0 6px; color: var(--soft); font-weight: 600; }
p { margin: 0 0 10px; } p:last-child { margin-bottom: 0; }
.soft, figcaption { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 18px 20px; margin:
  0 0 16px; }
.headline { display: flex; flex-wrap: wrap; gap: 8px 36px; align-items: baseline; }
.figure b { display: block; font-size: 44px; line-height: 1.1; letter-spacing: -1px; font-variant-numeric:
  tabular-nums; }
.figure.minor b { font-size: 24px; letter-spacing: 0; }
.late { color: var(--bad); font-weight: 600; }
.grid { display: grid; gap: 18px 24px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.wrap { overflow-wrap: anywhere; }
td.best { font-weight: 700; }
ul { margin: 0; padding-left: 18px; }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--page); border-radius: 8px; padding: 10px 12px; margin: 0; white-space: pre-wrap;
  overflow-wrap: anywhere; }
details summary { cursor: pointer; color: var(--soft); } details[open] summary { margin-bottom: 10px; }
svg { display: block; width: 100%; height: auto; }
svg.timeline { height: 30px; border-radius: 6px; }
.matrix svg { margin: 0 auto 12px; } .square { max-width: 300px; } .chart { max-width: 560px; margin-bottom: 12px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 10px; font-size: 13px; color: var(--soft); }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
line.grid { stroke: var(--line); } line.diagonal { stroke: var(--soft); stroke-dasharray: 4 4; }
text { font-size: 13.5px; font-family: inherit; fill: var(--soft); } text.end { text-anchor: end; } text.mid {
  text-anchor: middle; }
text.cell { font-size: 12px; fill: var(--ink); } text.cell.bright { fill: var(--card); }
polyline.line { fill: none; stroke-width: 2; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
polyline.faint { stroke: var(--line); } polyline.bound { stroke: var(--soft); stroke-dasharray: 4 4; }
.first { stroke: var(--accent); } .other { stroke: var(--second); } circle.first { fill: var(--accent); }
  circle.other { fill: var(--second); }
rect.bar { fill: var(--accent); } rect.right { fill: var(--good); } rect.wrong { fill: var(--bad); } rect.empty {
  fill: var(--empty); }
rect.part0, i.part0 { fill: var(--p0); background: var(--p0); } rect.part1, i.part1 { fill: var(--p1); background:
  var(--p1); }
rect.part2, i.part2 { fill: var(--p2); background: var(--p2); } rect.part3, i.part3 { fill: var(--p3); background:
  var(--p3); }
rect.part4, i.part4 { fill: var(--p4); background: var(--p4); } rect.part5, i.part5 { fill: var(--p5); background:
  var(--p5); }
rect.part6, i.part6 { fill: var(--p6); background: var(--p6); } rect.part7, i.part7 { fill: var(--p7); background:
  var(--p7); }
i.empty { background: var(--empty); }
.thumbs { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); }
.thumbs figure { margin: 0; min-width: 0; }
.thumbs img { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 8px; background: var(--empty);
  display: block; }
.thumbs img.small { image-rendering: pixelated; }
.thumbs figcaption { font-size: 12px; line-height: 1.35; margin-top: 3px; overflow-wrap: anywhere; }
.thumbs b { color: var(--ink); font-weight: 600; }
@media (max-width: 560px) { main { padding: 16px 10px 40px; } section { padding: 14px; } .figure b { font-size:
  36px; } }
@media print { section { break-inside: avoid; } }
"""
