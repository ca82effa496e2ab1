// What Gradio has no component for: following links without loading the page again, the address
// and the focus after an answer, marking a region, pasting, and sending files one by one.
"use strict";

window.imgsearch = (() => {
  const find = (selector) => document.querySelector(selector);
  const on = (type, act) => document.addEventListener(type, act);
  let [show, wanted] = [null, null]; // asks for what the address says; the address of a link
  const canonical = (query) => new URLSearchParams(query).toString();

  // Links with `data-visit` lead to another search. `layout.py` shows what the address says on the
  // "click" of its results, which `connect` gets from them.
  const connect = (trigger) => (show = () => trigger("click"));
  function visit(address) {
    if (address !== (location.search || "?")) history.pushState(null, "", address);
    wanted = address;
    show();
  }
  on("click", (event) => {
    const link = event.target.closest("a[data-visit]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    visit(link.search || "?");
  });
  addEventListener("popstate", () => visit(location.search || "?"));
  // The address of what is shown becomes the page's own. Returns what the results say.
  async function answered(address) {
    const isLate = wanted !== null && canonical(address) !== canonical(wanted); // than another link
    if (isLate) show();
    else if (canonical(address) !== canonical(location.search)) {
      // A slider that moves is not a page for each of its steps.
      const search = (query) => canonical(query).replace(/(^|&)(k|min_score)=[^&]*/g, "");
      history[search(address) === search(location.search) ? "replaceState" : "pushState"](null, "", address);
    }
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    const heading = find("[data-heading]");
    document.title = location.search ? `${heading.textContent} – imgsearch` : "imgsearch";
    if (wanted !== null || document.activeElement.closest("#search, #text")) heading.focus();
    if (!isLate) wanted = null;
    return `${heading.textContent} ↓`;
  }
  // The map asks to search with an image; it has an origin of its own, so that only its window tells.
  addEventListener("message", ({ source, data }) => {
    const isMap = source && source === find("#map iframe")?.contentWindow;
    if (!isMap || data?.imgsearch !== "search" || !/^[0-9a-f-]{36}$/.test(data.record)) return;
    find("[role=tab]").click();
    visit(`?id=${data.record}`);
  });
  // A region is drawn on the image of `query.html`, or entered below it.
  function setRegion(edges) {
    const given = new URLSearchParams(location.search);
    given.set("region", edges.map((edge) => Number(edge.toFixed(3))).join());
    visit(`?${given}`);
  }
  on("pointerdown", (event) => {
    const marker = event.target.closest("[data-marker]");
    // A finger scrolls, unless a region is being marked.
    if (!marker || event.button || (event.pointerType === "touch" && !find(".part").open)) return;
    event.preventDefault();
    const [box, frame] = [marker.getBoundingClientRect(), marker.querySelector(".marked").style];
    const within = (value) => Math.min(1, Math.max(0, value));
    const at = (point) => [within((point.clientX - box.left) / box.width), within((point.clientY - box.top) / box.height)];
    const [from, before] = [at(event), frame.inset];
    const edgesTo = (to) => [Math.min, Math.max].flatMap((pick) => [pick(from[0], to[0]), pick(from[1], to[1])]);
    marker.setPointerCapture(event.pointerId);
    marker.onpointermove = (moved) => {
      const [left, top, right, bottom] = edgesTo(at(moved)).map((edge) => 100 * edge);
      frame.inset = `${top}% ${100 - right}% ${100 - bottom}% ${left}%`;
    };
    marker.onpointerup = marker.onpointercancel = (last) => {
      marker.onpointermove = marker.onpointerup = marker.onpointercancel = null;
      const edges = edgesTo(at(last));
      const isLarge = edges[2] - edges[0] > 0.02 && edges[3] - edges[1] > 0.02;
      last.type === "pointerup" && isLarge ? setRegion(edges) : (frame.inset = before);
    };
  });
  on("submit", (event) => {
    if (!event.target.matches("[data-region]")) return;
    event.preventDefault();
    setRegion([...event.target.querySelectorAll("input")].map((input) => input.value / 100));
  });
  on("paste", ({ clipboardData }) => {
    const input = find("#image input[type=file]");
    if (!input || !clipboardData?.files.length) return;
    input.files = clipboardData.files;
    input.dispatchEvent(new Event("change"));
  });
  // One by one: a file that is too large fails its whole request. Sent again while the service is busy.
  const MOST_FILES = 500; // whose names fit into one request
  async function send(files, status, upload) {
    const sent = [];
    for (let [i, tries] = [0, 30]; i < Math.min(MOST_FILES, files.length); ) {
      status.textContent = `Sending ${i + 1} of ${files.length}…`;
      const answer = await upload(files[i]).catch(({ message }) => ({ name: files[i].name, reason: message }));
      if (/^HTTP (429|503)/.test(answer.reason) && tries--) {
        await new Promise((resolve) => setTimeout(resolve, 2000));
        continue;
      }
      sent.push(answer.path ? { path: answer.path } : answer);
      [i, tries] = [i + 1, 30];
    }
    status.textContent = `${sent.filter((each) => each.path).length} of ${files.length} sent.${
      files.length > MOST_FILES ? ` Add them, then choose the next ${MOST_FILES}.` : ""}`;
    return sent;
  }
  return { connect, answered, send };
})();
