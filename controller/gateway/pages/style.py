"""How the page looks: light and dark by the device's setting, from 320 px on, nothing from elsewhere."""

from typing import Final

CSS: Final = """
:root { --bg:#f3f4f6; --card:#ffffff; --fg:#16202b; --muted:#5b6774; --line:#dde2e8; --accent:#1f5f99;
  --good:#1b7a43; --warn:#8a5a00; --bad:#b00020; --busy:#8a5a00; --calm:#44566c; --warn-bg:#fff4dc; --bad-bg:#fdE7ea; }
@media (prefers-color-scheme: dark) { :root { --bg:#10151b; --card:#1a222b; --fg:#e6ebf1; --muted:#98a5b3;
  --line:#2c3743; --accent:#7fb5e6; --good:#2f9e60; --warn:#e0a63a; --bad:#ef5a6f; --busy:#b67a12; --calm:#5d7590;
  --warn-bg:#33290f; --bad-bg:#3a1620; } }
* { box-sizing:border-box; }
html { color-scheme: light dark; }
body, body.body--dark, body.body--light { background:var(--bg); color:var(--fg); margin:0;
  font:16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
body { --nicegui-default-padding:0; --nicegui-default-gap:0; }
body .nicegui-content { padding:0; gap:0; display:block; width:100%; }
.link { background:none; border:0; padding:.3rem; font:inherit; color:var(--accent); text-decoration:underline;
  cursor:pointer; }
.muted { overflow-wrap:anywhere; } .card td { overflow-wrap:break-word; }
.q-page, .q-page-container, .q-layout { min-height:0 !important; }
a { color:var(--accent); }
header.top { width:100%; position:sticky; top:0; z-index:10; background:var(--card);
  border-bottom:1px solid var(--line); }
header.top .in { max-width:1180px; margin:0 auto; padding:.5rem .8rem 0; }
header.top .line { display:flex; align-items:center; gap:.6rem; justify-content:space-between; flex-wrap:wrap; }
header.top .name { font-weight:650; text-decoration:none; color:var(--fg); }
nav.pages { display:flex; gap:.15rem; overflow-x:auto; scrollbar-width:none; margin-top:.3rem; }
nav.pages a { padding:.5rem .75rem; color:var(--muted); text-decoration:none; white-space:nowrap;
  border-bottom:3px solid transparent; }
nav.pages a.here { color:var(--fg); border-color:var(--accent); font-weight:600; }
div.page { max-width:1180px; margin:0 auto; padding:.8rem; display:grid; gap:.8rem;
  grid-template-columns:minmax(0,1fr); }
@media (min-width:900px) { div.page { grid-template-columns:minmax(0,1fr) minmax(0,1fr); }
  div.page > .wide { grid-column:1/-1; } }
.card { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:.9rem 1rem; display:block; }
.card:has(> .nicegui-html:only-child:empty), .none { display:none; }
.card h2 { font-size:1.05rem; line-height:1.3; margin:0 0 .5rem; font-weight:650; letter-spacing:0; }
.card p { margin:.35rem 0; } .card ul { margin:.2rem 0 .3rem 1.1rem; padding:0; list-style:disc; }
.muted { color:var(--muted); } .small { font-size:.85rem; }
.age { color:var(--muted); font-size:.78rem; white-space:nowrap; }
.row { display:flex; align-items:center; gap:.7rem; flex-wrap:wrap; }
.chip { display:inline-block; color:#fff; font-weight:650; padding:.15rem .7rem; border-radius:99px; }
.chip.good { background:var(--good); } .chip.bad { background:var(--bad); } .chip.busy { background:var(--busy); }
.chip.calm { background:var(--calm); }
.chip.old { background:repeating-linear-gradient(45deg,#6b7280,#6b7280 8px,#7d8592 8px,#7d8592 16px); }
.old:not(.chip) { opacity:.55; filter:grayscale(1); }
.old:not(.chip) b, .old .huge { text-decoration:line-through; text-decoration-thickness:1px; }
.pair { display:grid; grid-template-columns:1fr 1fr; gap:1rem; }
.huge { font-size:2.5rem; font-weight:650; line-height:1.1; font-variant-numeric:tabular-nums; white-space:nowrap; }
.huge small { font-size:1.1rem; font-weight:500; color:var(--muted); margin-left:.25rem; }
.bar { height:.5rem; background:var(--line); border-radius:9px; overflow:hidden; margin:.35rem 0; }
.bar i { display:block; height:100%; background:var(--good); }
.grid { display:grid; grid-template-columns:repeat(auto-fill,minmax(150px,1fr)); gap:.7rem 1rem; }
.value { font-variant-numeric:tabular-nums; } .value b { font-size:1.12rem; font-weight:600; }
.value .label { display:block; color:var(--muted); font-size:.82rem; }
.alert { border-left:5px solid; padding:.6rem .8rem; border-radius:8px; }
.alert.bad, .fault.bad { background:var(--bad-bg); border-color:var(--bad); }
.alert.warn, .fault.warn { background:var(--warn-bg); border-color:var(--warn); }
.fault { border-left:5px solid; border-radius:8px; padding:.6rem .8rem; margin-top:.5rem; }
code { background:rgba(127,127,127,.16); border-radius:5px; padding:0 .3rem; font-size:.9em; }
.scroll { overflow-x:auto; }
.card table { border-collapse:collapse; width:100%; font-size:.92rem; }
.card th { text-align:left; color:var(--muted); font-weight:500; }
.card th, .card td { padding:.35rem .6rem .35rem 0; border-bottom:1px solid var(--line); vertical-align:top; }
.card td.n { text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap; }
.events td:first-child { white-space:nowrap; font-variant-numeric:tabular-nums; }
.sev { font-weight:600; } .sev.open, .sev.lock-out { color:var(--bad); }
.sev.graceful, .sev.limit, .sev.no-closing, .sev.warning { color:var(--warn); }
.toml { font:13px/1.4 ui-monospace, monospace; min-height:22rem; white-space:pre; overflow-x:auto; }
pre { font:13px/1.4 ui-monospace, monospace; }
.paper { background:#fff; border-radius:8px; padding:.4rem; overflow:auto; }
.paper svg { min-width:720px; height:auto; display:block; margin:0 auto; }
details > summary { cursor:pointer; }
.tools { display:flex; gap:.5rem; flex-wrap:wrap; align-items:center; }
.tools .q-btn { min-height:40px; }
.q-field { font-size:1rem; }
@media (max-width:620px) {
  .stack thead { display:none; } .stack tr { display:block; padding:.5rem 0; border-bottom:1px solid var(--line); }
  .stack td { display:block; border:0; padding:.05rem 0; }
  .huge { font-size:2.1rem; }
  .pair.limits { grid-template-columns:1fr; gap:.6rem; } div.page { padding:.5rem; gap:.5rem; }
  nav.pages { flex-wrap:wrap; } nav.pages a { padding:.3rem .6rem; font-size:.95rem; }
  .card { padding:.75rem .8rem; }
}
"""

LOGIN: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{css}
form.in {{ max-width:22rem; margin:12vh auto 0; }} form.in input {{ width:100%; font:inherit; padding:.6rem;
border:1px solid var(--line); border-radius:8px; background:var(--bg); color:var(--fg); margin:.2rem 0 .8rem; }}
form.in button {{ font:inherit; font-weight:600; width:100%; padding:.65rem; border:0; border-radius:8px;
background:var(--accent); color:var(--card); cursor:pointer; }}</style></head><body><div class="page">
<form class="card in" method="post" action="/login"><h2>{title}</h2>{message}
<input type="hidden" name="form" value="{form}"><input type="hidden" name="next" value="{next}">
<label for="password" class="muted">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>
<button type="submit">Log in</button>
<p class="small muted">It is set at the machine: <code>sudo controller gateway passwd</code></p></form></div>
</body></html>
"""
