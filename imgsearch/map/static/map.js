// The viewer of a map. deck.gl draws the points; a canvas over it shows images, rings and the lasso.
"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const MOST_LISTED = 200;

  // Data: blocks of gzip in base64.

  const bytes = (text) => {
    const raw = atob(text.trim());
    const made = new Uint8Array(raw.length);
    for (let at = 0; at < raw.length; at++) made[at] = raw.charCodeAt(at);
    return made;
  };
  const unpacked = async (name) => {
    const stream = new Blob([bytes($(name).textContent)]).stream();
    return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  };
  const json = async (name) => JSON.parse(new TextDecoder().decode(await unpacked(name)));
  const optional = (name, read) => ($(name) ? read(name) : null);

  const meta = await json("data-meta");
  $("title").textContent = document.title = meta.title;
  $("subtitle").textContent = meta.subtitle;
  const [places, nearest, scores, contents, firsts, thumbs, paths, links, ids] = await Promise.all([
    unpacked("data-positions").then((raw) => new Float32Array(raw)),
    unpacked("data-nearest").then((raw) => new Int32Array(raw)),
    unpacked("data-scores").then((raw) => new Uint16Array(raw)),
    unpacked("data-contents").then((raw) => new Uint32Array(raw)),
    unpacked("data-firsts").then((raw) => new Uint32Array(raw)),
    unpacked("data-thumbnails").then((raw) => new Int32Array(raw)),
    optional("data-paths", json),
    optional("data-links", json),
    optional("data-ids", unpacked)?.then((raw) => new Uint8Array(raw)),
  ]);
  const count = meta.count;
  const fields = await Promise.all(
    meta.fields.map(async (field, number) => {
      const raw = await unpacked(`data-field-${number}`);
      return { ...field, data: field.values ? new Int32Array(raw) : new Float64Array(raw) };
    }),
  );

  const groupField = meta.groups.length ? fields.at(-1) : null;

  // Fields: the text of a value, and the category that colors and filters use.

  const format = new Intl.NumberFormat("en-US", { maximumFractionDigits: 4 });
  const plain = (value) => (Number.isInteger(value) ? String(value) : format.format(value));
  const known = (field, at) =>
    field.values ? field.data[at] >= 0 : !Number.isNaN(field.data[at]);
  const valueOf = (field, at) =>
    field.values ? field.values[field.data[at]] : plain(field.data[at]);

  const css = (color) => `rgb(${color.join(",")})`;
  const OTHER = [150, 150, 148];
  const scaleColor = (share) => {
    const last = meta.scale.length - 1;
    const at = Math.min(last - 1, Math.floor(share * last));
    const part = share * last - at;
    const [low, high] = [meta.scale[at], meta.scale[at + 1]];
    return low.map((each, channel) => Math.round(each + (high[channel] - each) * part));
  };

  const classify = (field) => {
    if (field.entries) return;
    const of = new Int16Array(count);
    if (field.values) {
      const counts = new Map();
      for (let at = 0; at < count; at++)
        if (field.data[at] >= 0) counts.set(field.data[at], (counts.get(field.data[at]) || 0) + 1);
      const byCount = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
      const most = field.values.length === meta.groups.length && field === groupField
        ? Infinity : meta.palette.length;
      const top = byCount.slice(0, byCount.length > most ? most - 1 : most);
      const entry = new Map(top.map(([code], number) => [code, number]));
      field.number = entry; // by code
      field.entries = top.map(([code, size], number) => ({
        name: field.values[code], color: meta.palette[number % meta.palette.length], size,
      }));
      const rest = byCount.length - top.length;
      if (rest) {
        const size = byCount.slice(top.length).reduce((sum, [, each]) => sum + each, 0);
        field.entries.push({ name: `${rest} other values`, color: OTHER, size });
      }
      for (let at = 0; at < count; at++)
        of[at] = field.data[at] < 0 ? -1 : (entry.get(field.data[at]) ?? top.length);
    } else {
      const sorted = field.data.filter((value) => !Number.isNaN(value)).sort();
      const distinct = [...new Set(sorted)];
      const edges = [];
      const bins = Math.min(distinct.length, distinct.length <= 8 ? 8 : 6);
      for (let bin = 0; bin < bins; bin++) {
        const edge = distinct.length <= 8
          ? distinct[bin] : sorted[Math.floor((bin * sorted.length) / bins)];
        if (edge !== edges.at(-1)) edges.push(edge);
      }
      field.low = sorted[Math.floor(sorted.length * 0.01)];
      field.high = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.99))];
      field.share = (value) =>
        Math.max(0, Math.min(1, (value - field.low) / (field.high - field.low || 1)));
      field.entries = edges.map((edge, number) => {
        const exact = distinct.length <= 8;
        const end = edges[number + 1] ?? sorted.at(-1);
        const last = number === edges.length - 1;
        return {
          name: exact ? plain(edge) : `${plain(edge)} ${last ? "to" : "to below"} ${plain(end)}`,
          color: scaleColor(field.share(exact ? edge : (edge + end) / 2)), size: 0,
        };
      });
      for (let at = 0; at < count; at++) {
        const value = field.data[at];
        of[at] = Number.isNaN(value) ? -1 : edges.findLastIndex((edge) => edge <= value);
        if (of[at] >= 0) field.entries[of[at]].size++;
      }
    }
    const missing = of.reduce((sum, each) => sum + (each < 0), 0);
    if (missing) {
      for (let at = 0; at < count; at++) if (of[at] < 0) of[at] = field.entries.length;
      field.entries.push({ name: "no value", color: OTHER, size: missing, missing: true });
    }
    field.of = of;
    field.hidden = new Set();
  };

  let current = fields[meta.color_by] || null;
  let emphasized = -1;
  let selected = -1;
  let near = [];
  let lassoed = [];
  const inLasso = new Uint8Array(count);
  const visible = new Uint8Array(count).fill(1);
  let shown = count;

  const applyFilters = () => {
    const filters = fields.filter((field) => field.hidden?.size);
    shown = 0;
    for (let at = 0; at < count; at++) {
      visible[at] = +filters.every((field) => !field.hidden.has(field.of[at]));
      shown += visible[at];
    }
  };
  const colorOf = (at) => {
    if (!current) return [86, 124, 178];
    const entry = current.entries[current.of[at]];
    if (current.values || entry.missing) return entry.color;
    return scaleColor(current.share(current.data[at]));
  };
  const isFaint = (at) =>
    emphasized >= 0 ? current.of[at] !== emphasized : lassoed.length > 0 && !inLasso[at];
  const colors = new Uint8Array(4 * count);
  const paint = () => {
    const alpha = count > 100000 ? 150 : 205;
    for (let at = 0; at < count; at++) {
      colors.set(colorOf(at), 4 * at);
      colors[4 * at + 3] = visible[at] ? (isFaint(at) ? 25 : alpha) : 0;
    }
    redraw();
  };

  // The view.

  const map = $("map");
  const overlay = $("overlay");
  const brush = overlay.getContext("2d");
  let [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
  for (let at = 0; at < 2 * count; at++) {
    low[at % 2] = Math.min(low[at % 2], places[at]);
    high[at % 2] = Math.max(high[at % 2], places[at]);
  }
  const size = () => [map.clientWidth, map.clientHeight];
  const fitted = () => {
    const [width, height] = size();
    const narrow = width < 960;
    const free = [width - (narrow ? 60 : 380), height - (narrow ? 150 : 100)];
    const spans = [high[0] - low[0], high[1] - low[1]].map((span) => Math.max(span, 1e-3));
    const zoom = Math.log2(Math.min(free[0] / spans[0], free[1] / spans[1]));
    const shift = narrow ? 0 : 95 / 2 ** zoom;
    return { target: [(low[0] + high[0]) / 2 + shift, (low[1] + high[1]) / 2], zoom };
  };
  const fit = fitted();
  let view = { ...fit, minZoom: fit.zoom - 1, maxZoom: fit.zoom + 14 };
  const project = (x, y) => {
    const [width, height] = size();
    const scale = 2 ** view.zoom;
    return [width / 2 + (x - view.target[0]) * scale, height / 2 - (y - view.target[1]) * scale];
  };
  const toScreen = (at) => project(places[2 * at], places[2 * at + 1]);
  const radius = () => {
    const [width, height] = size();
    const base = 0.2 * Math.sqrt((width * height) / count);
    return Math.max(1, Math.min(9, Math.min(base, 6) * 2 ** (0.3 * (view.zoom - fit.zoom))));
  };
  const layers = () => [
    new deck.ScatterplotLayer({
      id: "points",
      data: {
        length: count,
        attributes: {
          getPosition: { value: places, size: 2 },
          getFillColor: { value: colors, size: 4, type: "unorm8" },
        },
      },
      getRadius: 1,
      radiusUnits: "pixels",
      radiusScale: radius(),
    }),
  ];
  let made = null;
  const redraw = () => made?.setProps({ layers: layers() });
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const go = (target, zoom, milliseconds = 350) => {
    const next = { ...view, target, zoom: Math.max(view.minZoom, Math.min(view.maxZoom, zoom)) };
    const duration = still.matches ? 0 : milliseconds;
    made.setProps({
      initialViewState: {
        ...next,
        transitionDuration: duration,
        transitionInterpolator: new deck.LinearInterpolator(["target", "zoom"]),
        stamp: performance.now(),
      },
    });
    if (!duration) moved(next);
  };
  const moved = (next) => {
    const zoomed = next.zoom !== view.zoom;
    view = { ...view, target: next.target.slice(0, 2), zoom: next.zoom };
    if (zoomed) redraw();
    hideTip();
  };

  // Images: sheets of equal cells are decoded when a view needs them, the latest are kept.

  const sheets = new Map();
  const perSheet = meta.columns ** 2;
  const MOST_SHEETS = 40;
  const sheet = (number) => {
    const kept = sheets.get(number);
    if (kept) {
      sheets.delete(number);
      sheets.set(number, kept);
      return kept;
    }
    const element = $(`sheet-${number}`);
    if (!element) return null; // the browser still reads the file
    const entry = { bitmap: null };
    entry.ready = createImageBitmap(new Blob([bytes(element.textContent)], { type: "image/webp" }))
      .then((bitmap) => {
        entry.bitmap = bitmap;
        drawSoon();
      })
      .catch(() => {});
    sheets.set(number, entry);
    if (sheets.size > MOST_SHEETS) {
      const [oldest, old] = sheets.entries().next().value;
      sheets.delete(oldest);
      old.bitmap?.close();
    }
    return entry;
  };
  const cell = (at) => {
    const number = thumbs[contents[at]];
    const side = meta.side;
    const within = number % perSheet;
    return {
      sheet: Math.floor(number / perSheet),
      x: (within % meta.columns) * side,
      y: Math.floor(within / meta.columns) * side,
    };
  };
  const hasImage = (at) => thumbs[contents[at]] >= 0;
  const drawCell = (onto, at, x, y, width) => {
    const from = cell(at);
    const bitmap = sheet(from.sheet)?.bitmap;
    if (!bitmap) return false;
    onto.drawImage(bitmap, from.x, from.y, meta.side, meta.side, x, y, width, width);
    return true;
  };
  const picture = (at, width) => {
    const canvas = document.createElement("canvas");
    canvas.className = "thumb";
    canvas.width = canvas.height = meta.side;
    canvas.style.width = canvas.style.height = `${width}px`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", nameOf(at));
    canvas.dataset.drawn = "no";
    const attempt = () => {
      const onto = canvas.getContext("2d");
      const entry = sheet(cell(at).sheet);
      if (drawCell(onto, at, 0, 0, meta.side)) canvas.dataset.drawn = "yes";
      else if (entry) entry.ready.then(() => entry.bitmap && attempt());
    };
    attempt();
    return canvas;
  };

  let pending = false;
  const drawSoon = () => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      drawOverlay();
    });
  };
  let lasso = null;
  const images = [];
  const drawOverlay = () => {
    const [width, height] = size();
    const ratio = Math.min(devicePixelRatio || 1, 2);
    if (overlay.width !== Math.round(width * ratio) || overlay.height !== Math.round(height * ratio)) {
      overlay.width = Math.round(width * ratio);
      overlay.height = Math.round(height * ratio);
    }
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    brush.clearRect(0, 0, width, height);
    images.length = 0;
    drawImages(width, height);
    const style = getComputedStyle(document.documentElement);
    const text = style.getPropertyValue("--text");
    const mark = style.getPropertyValue("--mark");
    drawNames(text, style.getPropertyValue("--solid"));
    brush.lineWidth = 1.5;
    brush.strokeStyle = mark;
    brush.globalAlpha = 0.6;
    if (selected >= 0 && near.length) {
      const [x, y] = toScreen(selected);
      brush.beginPath();
      for (const at of near) {
        brush.moveTo(x, y);
        brush.lineTo(...toScreen(at));
      }
      brush.stroke();
    }
    brush.globalAlpha = 1;
    for (const at of near) ring(at, radius() + 3, mark);
    brush.lineWidth = 3;
    if (selected >= 0) ring(selected, radius() + 5, text);
    if (lasso) {
      brush.lineWidth = 1.5;
      brush.strokeStyle = text;
      brush.fillStyle = mark;
      brush.beginPath();
      for (const point of lasso) brush.lineTo(...point);
      brush.closePath();
      brush.stroke();
      brush.globalAlpha = 0.12;
      brush.fill();
      brush.globalAlpha = 1;
    }
    if (document.activeElement === map && map.matches(":focus-visible")) {
      brush.lineWidth = 1;
      brush.strokeStyle = text;
      brush.beginPath();
      brush.moveTo(width / 2 - 8, height / 2);
      brush.lineTo(width / 2 + 8, height / 2);
      brush.moveTo(width / 2, height / 2 - 8);
      brush.lineTo(width / 2, height / 2 + 8);
      brush.stroke();
    }
  };
  const ring = (at, width, color) => {
    const [x, y] = toScreen(at);
    brush.strokeStyle = color;
    brush.beginPath();
    const image = images.find((each) => each.at === at);
    if (image) {
      brush.lineWidth = 4;
      brush.strokeRect(image.left, image.top, image.thumb, image.thumb);
      return;
    }
    brush.arc(x, y, width, 0, 2 * Math.PI);
    brush.stroke();
  };
  const inView = (margin = 0) => {
    const [width, height] = size();
    const scale = 2 ** view.zoom;
    const [x, y] = [width / 2 / scale + margin, height / 2 / scale + margin];
    const found = [];
    for (let at = 0; at < count; at++)
      if (
        visible[at] &&
        Math.abs(places[2 * at] - view.target[0]) <= x &&
        Math.abs(places[2 * at + 1] - view.target[1]) <= y
      )
        found.push(at);
    return found;
  };
  // At most one image in each square of a grid that is fixed to the map, so that none changes while
  // the map moves; a deeper zoom has smaller squares.
  const drawImages = (width, height) => {
    const level = Math.floor(view.zoom);
    const side = 76 * 2 ** (view.zoom - level);
    const world = 76 / 2 ** level;
    const found = inView(world);
    if (!meta.thumbnails || (found.length > 300 && view.zoom < fit.zoom + 1.5)) return;
    const taken = new Map();
    const thumb = 0.84 * side;
    for (const at of found) {
      if (!hasImage(at)) continue;
      const column = Math.floor(places[2 * at] / world);
      const row = Math.floor(places[2 * at + 1] / world);
      if (taken.has(`${column} ${row}`)) continue;
      let free = true;
      for (let dx = -1; dx <= 1 && free; dx++)
        for (let dy = -1; dy <= 1 && free; dy++) {
          const other = taken.get(`${column + dx} ${row + dy}`);
          if (other === undefined) continue;
          free =
            Math.abs(places[2 * at] - places[2 * other]) * 2 ** view.zoom > thumb ||
            Math.abs(places[2 * at + 1] - places[2 * other + 1]) * 2 ** view.zoom > thumb;
        }
      if (free) taken.set(`${column} ${row}`, at);
    }
    for (const at of taken.values()) {
      const [x, y] = toScreen(at);
      const [left, top] = [x - thumb / 2, y - thumb / 2];
      if (left > width || top > height || left + thumb < 0 || top + thumb < 0) continue;
      brush.globalAlpha = isFaint(at) ? 0.2 : 1;
      const drawn = drawCell(brush, at, left, top, thumb);
      brush.globalAlpha = 1;
      if (!drawn) continue;
      images.push({ at, left, top, thumb });
      brush.lineWidth = 2;
      brush.strokeStyle = css(colorOf(at));
      brush.strokeRect(left, top, thumb, thumb);
    }
  };

  // The names of groups, the largest first, where there is room.
  const drawNames = (text, ground) => {
    if (current !== groupField || images.length) return;
    brush.font = "600 12px system-ui, sans-serif";
    brush.textAlign = "center";
    brush.textBaseline = "middle";
    const taken = [];
    meta.groups.forEach((group, number) => {
      if (current.hidden.has(current.number.get(number))) return;
      const [x, y] = project(...group.place);
      const name = safe(group.name.length > 40 ? `${group.name.slice(0, 39)}…` : group.name);
      const width = brush.measureText(name).width + 10;
      const clash = (box) => Math.abs(box.x - x) < (box.width + width) / 2 && Math.abs(box.y - y) < 20;
      if (taken.length >= 60 || taken.some(clash)) return;
      taken.push({ x, y, width });
      brush.globalAlpha = 0.8;
      brush.fillStyle = ground;
      brush.beginPath();
      brush.roundRect(x - width / 2, y - 9, width, 18, 4);
      brush.fill();
      brush.globalAlpha = 1;
      brush.fillStyle = text;
      brush.fillText(name, x, y);
    });
  };

  // Points under the pointer: images first, as they lie on top.

  const pick = (x, y, reach = Math.max(8, radius() + 3)) => {
    for (let number = images.length - 1; number >= 0; number--) {
      const { at, left, top, thumb } = images[number];
      if (x >= left && y >= top && x <= left + thumb && y <= top + thumb) return at;
    }
    return closest(x, y, reach);
  };
  const closest = (x, y, reach) => {
    const [width, height] = size();
    const scale = 2 ** view.zoom;
    const [left, top] = [(x - width / 2) / scale + view.target[0], view.target[1] - (y - height / 2) / scale];
    let [best, least] = [-1, (reach / scale) ** 2];
    for (let at = 0; at < count; at++) {
      if (!visible[at]) continue;
      const distance = (places[2 * at] - left) ** 2 + (places[2 * at + 1] - top) ** 2;
      if (distance <= least) [best, least] = [at, distance];
    }
    return best;
  };

  // What is shown of an image.

  const baseName = (path) => path.split(/[/\\]/).pop() || path;
  const texts = fields.filter((field) => field.values && field !== groupField);
  // The description of an image that has no path here, or its longest text.
  const described = (at) => {
    const found = texts.filter((field) => known(field, at));
    const named = found.find((field) => field.name === "description");
    const longest = found.map((field) => valueOf(field, at)).sort((a, b) => b.length - a.length)[0];
    return (named ? valueOf(named, at) : longest) || "an image without a description";
  };
  const nameOf = (at) => (paths ? baseName(paths[at]) : described(at));
  const idOf = (at) =>
    Array.from(ids.subarray(16 * at, 16 * at + 16), (byte) => byte.toString(16).padStart(2, "0"))
      .join("").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  const linkOf = (at) => (ids ? `records/${idOf(at)}/image` : links[at]);
  // What lists of images, and files with such lists, name them by.
  const keyOf = (at) => (paths ? paths[at] : idOf(at));
  const keys = paths ? "paths" : "ids";
  // Marks of writing direction and control characters can make one name look like another.
  const DECEPTIVE = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]/g;
  const safe = (text) =>
    String(text).replace(/[\ud800-\udbff][\udc00-\udfff]|[^]/g, (one) =>
      one.length > 1 || one.search(DECEPTIVE) < 0
        ? one : `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const element = (name, text, attributes = {}) => {
    const node = document.createElement(name);
    if (text !== undefined) {
      const isolated = document.createElement("bdi");
      isolated.textContent = safe(text);
      node.append(isolated);
    }
    Object.assign(node, attributes);
    return node;
  };
  const table = (at, most) => {
    const list = element("dl");
    for (const field of fields.filter((each) => known(each, at)).slice(0, most)) {
      const row = element("div");
      row.append(element("dt", field.name), element("dd", valueOf(field, at)));
      list.append(row);
    }
    return list;
  };
  const tip = $("tip");
  let tipped = -1;
  const hideTip = () => {
    tip.hidden = true;
    tipped = -1;
  };
  const showTip = (at, x, y) => {
    if (at < 0) return hideTip();
    if (at !== tipped) {
      tip.replaceChildren();
      if (hasImage(at)) tip.append(picture(at, Math.max(128, meta.side)));
      tip.append(element("b", nameOf(at)), table(at, 6));
      tipped = at;
    }
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = x + 16 + box.width > innerWidth ? x - 16 - box.width : x + 16;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 16, innerHeight - box.height - 4))}px`;
  };

  const panel = $("panel");
  const content = $("content");
  const setLassoed = (found) => {
    if (!found.length && !lassoed.length) return;
    lassoed = found;
    inLasso.fill(0);
    for (const at of found) inLasso[at] = 1;
    paint();
  };
  const close = () => {
    panel.hidden = true;
    selected = -1;
    near = [];
    setLassoed([]);
    drawSoon();
  };
  const neighborsOf = (at) => {
    const found = [];
    const own = contents[at];
    for (let number = own * meta.neighbors; number < (own + 1) * meta.neighbors; number++)
      if (nearest[number] >= 0)
        found.push({ at: firsts[nearest[number]], score: scores[number] / 65535 });
    return found;
  };
  const select = (at) => {
    selected = at;
    setLassoed([]);
    const found = neighborsOf(at);
    near = found.map((each) => each.at);
    content.replaceChildren(element("h2", nameOf(at)));
    if (hasImage(at)) content.append(picture(at, Math.max(160, meta.side)));
    const path = element("p", undefined, { className: "path" });
    const [link, text] = [linkOf(at), paths ? paths[at] : "Open the image"];
    path.append(
      link
        ? element("a", text, { href: link, target: "_blank", rel: "noreferrer" })
        : element("span", text),
    );
    content.append(path);
    if (ids && parent !== window) {
      const search = element("button", "Search with this image", { type: "button", id: "search" });
      // To any origin, as this one is unknown to a sandboxed frame: a policy says whose frame it is.
      search.addEventListener("click", () => parent.postMessage({ imgsearch: "search", record: idOf(at) }, "*"));
      const actions = element("div", undefined, { className: "actions" });
      actions.append(search);
      content.append(actions);
    }
    content.append(table(at));
    const copies = [];
    for (let other = 0; other < count; other++)
      if (other !== at && contents[other] === contents[at]) copies.push(other);
    if (copies.length) {
      content.append(element("h3", `Exact copies (${copies.length.toLocaleString("en-US")})`));
      content.append(listed(copies));
    }
    content.append(element("h3", "Most similar images"));
    const list = element("ol", undefined, { id: "near" });
    for (const { at: other, score } of found) {
      const name = nameOf(other);
      const button = element("button", undefined, { type: "button", title: safe(paths ? paths[other] : name) });
      if (hasImage(other)) button.append(picture(other, 64));
      else button.append(element("span", name));
      button.append(element("div", score.toFixed(3)));
      button.setAttribute("aria-label", `${safe(name)}, similarity ${score.toFixed(3)}`);
      button.addEventListener("click", () => visit(other));
      const item = element("li");
      item.append(button);
      list.append(item);
    }
    content.append(list);
    panel.hidden = false;
    content.parentElement.scrollTop = 0;
    drawSoon();
  };
  const visit = (at) => {
    select(at);
    const [x, y] = toScreen(at);
    const [width, height] = size();
    if (x < 40 || y < 40 || x > width - 600 || y > height - 40)
      go([places[2 * at], places[2 * at + 1]], view.zoom);
    panel.querySelector("#near button, #close")?.focus({ preventScroll: true });
  };
  const listed = (found) => {
    const list = element("ol", undefined, { className: "paths" });
    for (const at of found.slice(0, MOST_LISTED)) {
      const button = element("button", paths ? paths[at] : nameOf(at), { type: "button" });
      button.addEventListener("click", () => visit(at));
      const item = element("li");
      item.append(button);
      list.append(item);
    }
    return list;
  };
  const list = (found, title) => {
    selected = -1;
    near = [];
    setLassoed(found);
    const number = found.length.toLocaleString("en-US");
    content.replaceChildren(element("h2", `${number} image${found.length === 1 ? "" : "s"} ${title}`));
    const actions = element("div", undefined, { className: "actions" });
    const text = () => found.map((at) => keyOf(at) + "\n").join("");
    const copy = element("button", `Copy ${keys}`, { type: "button", id: "copy" });
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text());
      } catch {
        const area = element("textarea");
        area.value = text();
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      copy.textContent = "Copied";
    });
    const save = element("button", `Save ${keys}`, { type: "button", id: "save" });
    save.addEventListener("click", () => {
      const link = element("a", undefined, {
        href: URL.createObjectURL(new Blob([text()], { type: "text/plain" })),
        download: `${keys}.txt`,
      });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
    if (found.length) actions.append(copy, save);
    content.append(actions, listed(found));
    if (found.length > MOST_LISTED)
      content.append(
        element("p", `and ${(found.length - MOST_LISTED).toLocaleString("en-US")} more, which Copy and Save include`),
      );
    panel.hidden = false;
    content.parentElement.scrollTop = 0;
    drawSoon();
  };

  // The legend.

  const chooser = $("field");
  fields.forEach((field, number) => {
    chooser.append(new Option(safe(field.name), String(number)));
  });
  if (!fields.length) chooser.append(new Option("no fields", "-1"));
  const showCounts = () => {
    $("shown").textContent = `${shown.toLocaleString("en-US")} of ${count.toLocaleString("en-US")} shown`;
    const others = fields.filter((field) => field !== current && field.hidden?.size);
    $("others").hidden = !others.length;
    $("others").replaceChildren();
    if (!others.length) return;
    $("others").append(`Also filtered by ${others.map((field) => safe(field.name)).join(", ")}`);
    const reset = element("button", "reset", { type: "button" });
    reset.addEventListener("click", () => {
      others.forEach((field) => field.hidden.clear());
      filtered();
    });
    $("others").append(reset);
  };
  const filtered = () => {
    applyFilters();
    hideTip();
    $("entries").querySelectorAll("input").forEach((box, number) => {
      box.checked = !current.hidden.has(number);
    });
    showCounts();
    paint();
    drawSoon();
  };
  const emphasize = (number) => {
    if (emphasized === number) return;
    emphasized = number;
    paint();
    drawSoon();
  };
  const showLegend = () => {
    $("entries").replaceChildren();
    $("scale").hidden = !current || !!current.values;
    if (!current) return;
    classify(current);
    if (!current.values) {
      const canvas = $("scale").querySelector("canvas");
      const onto = canvas.getContext("2d");
      for (let x = 0; x < canvas.width; x++) {
        onto.fillStyle = css(scaleColor(x / (canvas.width - 1)));
        onto.fillRect(x, 0, 1, canvas.height);
      }
      const [first, last] = $("scale").querySelectorAll("span");
      first.textContent = plain(current.low);
      last.textContent = plain(current.high);
    }
    current.entries.forEach((entry, number) => {
      const item = element("li");
      const label = element("label", undefined, { title: safe(entry.name) });
      const box = element("input", undefined, { type: "checkbox" });
      box.checked = !current.hidden.has(number);
      box.addEventListener("change", () => {
        if (box.checked) current.hidden.delete(number);
        else current.hidden.add(number);
        filtered();
      });
      const swatch = element("span", undefined, { className: "swatch" });
      swatch.style.background = css(entry.color);
      label.append(
        box,
        swatch,
        element("span", entry.name, { className: "name" }),
        element("span", entry.size.toLocaleString("en-US"), { className: "count" }),
      );
      const only = element("button", "only", { type: "button" });
      only.setAttribute("aria-label", `Only ${safe(entry.name)}`);
      only.addEventListener("click", () => {
        current.hidden = new Set(current.entries.keys());
        current.hidden.delete(number);
        filtered();
      });
      item.addEventListener("pointerenter", () => emphasize(current.hidden.has(number) ? -1 : number));
      item.addEventListener("pointerleave", () => emphasize(-1));
      item.append(label, only);
      $("entries").append(item);
    });
    filtered();
  };
  chooser.addEventListener("change", () => {
    current = fields[Number(chooser.value)] || null;
    emphasized = -1;
    showLegend();
  });
  $("all").addEventListener("click", () => {
    current?.hidden.clear();
    filtered();
  });
  $("none").addEventListener("click", () => {
    if (current) current.hidden = new Set(current.entries.keys());
    filtered();
  });

  // Pointer and keyboard.

  const here = (event) => {
    const box = map.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const setLasso = (on) => {
    map.classList.toggle("lasso", on);
    $("lasso").setAttribute("aria-pressed", String(on));
    hideTip();
  };
  const inside = (polygon, x, y) => {
    let within = false;
    for (let one = 0, other = polygon.length - 1; one < polygon.length; other = one++) {
      const [[x1, y1], [x2, y2]] = [polygon[one], polygon[other]];
      if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) within = !within;
    }
    return within;
  };
  addEventListener("pointerdown", (event) => {
    if (!map.contains(event.target) || event.button) return;
    hideTip();
    if (!event.shiftKey && !map.classList.contains("lasso")) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    lasso = [here(event)];
    map.setPointerCapture(event.pointerId);
  }, true);
  addEventListener("pointermove", (event) => {
    if (lasso) {
      event.stopImmediatePropagation();
      lasso.push(here(event));
      drawSoon();
    } else if (event.pointerType === "mouse") {
      const over = map.contains(event.target) && !event.buttons;
      if (over) showTip(pick(...here(event)), event.clientX, event.clientY);
      else hideTip();
    }
  }, true);
  const finish = (event) => {
    if (!lasso) return;
    event.stopImmediatePropagation();
    const polygon = lasso;
    lasso = null;
    setLasso(false);
    if (event.type === "pointerup" && polygon.length > 2) {
      const found = [];
      for (let at = 0; at < count; at++)
        if (visible[at] && inside(polygon, ...toScreen(at))) found.push(at);
      list(found, "in the lasso");
    }
    drawSoon();
  };
  addEventListener("pointerup", finish, true);
  addEventListener("pointercancel", finish, true);
  map.addEventListener("pointerleave", hideTip);

  const zoomBy = (step) => go(view.target, view.zoom + step, 200);
  const showAll = () => {
    const { target, zoom } = fitted();
    go(target, zoom);
  };
  $("in").addEventListener("click", () => zoomBy(1));
  $("out").addEventListener("click", () => zoomBy(-1));
  $("fit").addEventListener("click", showAll);
  $("lasso").addEventListener("click", () => setLasso(!map.classList.contains("lasso")));
  $("view").addEventListener("click", () => list(inView(), "in view"));
  $("close").addEventListener("click", close);
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  map.addEventListener("keydown", (event) => {
    const step = 80 / 2 ** view.zoom;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (MOVES[event.key]) {
      const [x, y] = MOVES[event.key];
      go([view.target[0] + x * step, view.target[1] + y * step], view.zoom, 80);
    } else if (event.key === "+" || event.key === "=") zoomBy(0.5);
    else if (event.key === "-") zoomBy(-0.5);
    else if (event.key === "0") showAll();
    else if (event.key === "l" || event.key === "L") setLasso(!map.classList.contains("lasso"));
    else if (event.key === "Enter") {
      const [width, height] = size();
      const at = closest(width / 2, height / 2, width);
      if (at >= 0) select(at);
    } else return;
    event.preventDefault();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (map.classList.contains("lasso")) setLasso(false);
    else close();
    hideTip();
  });
  map.addEventListener("focus", drawSoon);
  map.addEventListener("blur", drawSoon);

  // Start.

  if (innerWidth < 960) $("legend").open = false;
  chooser.value = String(meta.color_by);
  showLegend();
  paint();
  made = new deck.Deck({
    parent: map,
    views: new deck.OrthographicView({ flipY: false }),
    controller: { keyboard: false, doubleClickZoom: false, inertia: 200, scrollZoom: { speed: 0.01, smooth: false } },
    initialViewState: view,
    layers: layers(),
    useDevicePixels: Math.min(devicePixelRatio || 1, 2),
    getCursor: ({ isDragging }) => (isDragging ? "grabbing" : "default"),
    onViewStateChange: ({ viewState }) => moved(viewState),
    onAfterRender: drawOverlay,
    onClick: ({ x, y }) => {
      const at = pick(x, y);
      if (at >= 0) select(at);
      else if (selected >= 0) close();
    },
    onError: (error) => {
      $("status").textContent = `The map cannot be drawn: ${error.message}`;
      $("status").hidden = false;
    },
    onLoad: () => {
      $("status").hidden = true;
      document.documentElement.dataset.ready = String(Math.round(performance.now()));
    },
  });
  addEventListener("DOMContentLoaded", drawSoon);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawSoon);
  // For tests and the curious.
  globalThis.imgsearchMap = {
    count, paths, nameOf, toScreen, visible, images, go, view: () => view, draw: () => made.redraw("test"),
  };
})().catch((error) => {
  const status = document.getElementById("status");
  status.hidden = false;
  status.textContent = `The map cannot be opened: ${error.message}`;
  throw error;
});
