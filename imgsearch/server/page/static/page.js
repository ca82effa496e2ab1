// What the visitor does becomes an address, and the server shows what is at an address.
// Gradio carries it: its hidden buttons #visit and #ask ask for the view at the present address,
// #visit also sets the words, the bounds and the filters by it.
"use strict";

(() => {
  const find = (selector, within = document) => within.querySelector(selector);
  const params = () => new URLSearchParams(location.search);
  const address = (given) => (given.size ? `?${given}` : "?");
  let wanted = null; // where the focus goes once the answer is there

  // --- addresses ---

  function go(to, how = "pushState") {
    if (to !== address(params())) history[how](null, "", to);
  }

  function visit(to) {
    go(to);
    wanted = "#results";
    show();
  }

  // The form may come back as it came last, which Gradio takes for no change.
  function show() {
    find("[data-filters]")?.reset();
    busy();
    find("#visit").click();
  }

  // Change some of the address; null removes.
  function change(changes) {
    const given = params();
    for (const [name, value] of Object.entries(changes)) {
      value === null ? given.delete(name) : given.set(name, value);
    }
    go(address(given));
    find("#ask").click();
  }

  // The address of what the controls are set to, which becomes the page's own.
  function ask(words, k, least) {
    const given = params();
    const before = given.get("q") ?? "";
    const filters = find("[data-filters]");
    const set = (name, value) => (value ? given.set(name, value) : given.delete(name));
    set("q", words.trim());
    set("k", Number(k) === 24 ? "" : String(k));
    set("min_score", Number(least) > 0 ? String(least) : "");
    const conditions = filters ? conditionsOf(filters) : given.getAll("where");
    const same = conditions.join("\n") === given.getAll("where").join("\n");
    given.delete("where");
    for (const each of conditions) given.append("where", each);
    // A slider that moves is not a page for each of its steps.
    go(address(given), same && before === words.trim() ? "replaceState" : "pushState");
    busy();
    return location.search;
  }

  function conditionsOf(form) {
    const fields = [...form.querySelectorAll("[data-field]")].filter((each) => each.value !== "");
    const others = [...form.querySelectorAll("[data-condition]")];
    return [
      ...fields.map((each) => each.dataset.field + each.dataset.operator + each.value),
      ...others.map((each) => each.value),
    ];
  }

  // --- answers ---

  function busy() {
    find("#results")?.setAttribute("aria-busy", "true");
  }

  const told = document.createElement("p");
  told.id = "told";
  told.className = "sr";
  told.setAttribute("aria-live", "polite");

  // The answer is there, or there is none; the browser has yet to show it.
  const answered = () => requestAnimationFrame(() => setTimeout(settle));

  function settle() {
    const results = find("#results");
    results.removeAttribute("aria-busy");
    told.textContent = find("[data-told]", results)?.textContent ?? "";
    if (wanted) {
      const target = find(`${wanted} [data-told]`) ?? find(wanted);
      if (target) {
        target.tabIndex = -1;
        target.focus({ preventScroll: true });
        const { top } = target.getBoundingClientRect();
        if (top < 0 || top > innerHeight * 0.7) target.scrollIntoView();
      }
      wanted = null;
    }
  }

  // --- the part to search with ---

  const EDGES = ["left", "top", "right", "bottom"];

  function setUp(marker) {
    const panel = marker.closest(".query");
    const inputs = [...panel.querySelectorAll("[data-edge]")];
    const frame = find(".marked", marker);
    const draw = (edges) => {
      inputs.forEach((input, i) => {
        input.value = Math.round(edges[i] * 100);
        input.nextElementSibling.textContent = `${input.value} %`;
      });
      frame.hidden = edges.join() === "0,0,1,1";
      EDGES.forEach((edge, i) => {
        frame.style[edge] = `${(i < 2 ? edges[i] : 1 - edges[i]) * 100}%`;
      });
    };
    const given = (marker.dataset.region || "0,0,1,1").split(",").map(Number);
    draw(given.length === 4 && given.every(Number.isFinite) ? given : [0, 0, 1, 1]);

    for (const input of inputs) {
      input.addEventListener("input", () => {
        const at = Number(input.dataset.edge);
        const opposite = inputs[(at + 2) % 4];
        const [low, high] = at < 2 ? [input, opposite] : [opposite, input];
        // The edges do not cross.
        if (Number(low.value) >= Number(high.value)) {
          input.value = at < 2 ? Number(high.value) - 1 : Number(low.value) + 1;
        }
        draw(inputs.map((each) => Number(each.value) / 100));
      });
    }

    let from = null;
    const place = (event) => {
      const box = marker.getBoundingClientRect();
      const within = (value) => Math.min(1, Math.max(0, value));
      return [within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height)];
    };
    const between = (a, b) => [
      Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1]),
    ];
    marker.addEventListener("pointerdown", (event) => {
      // A finger scrolls, unless a part is being marked.
      const open = find(".part", panel).open;
      if (event.button !== 0 || (event.pointerType === "touch" && !open)) return;
      event.preventDefault();
      marker.setPointerCapture(event.pointerId);
      from = place(event);
    });
    marker.addEventListener("pointermove", (event) => from && draw(between(from, place(event))));
    marker.addEventListener("pointerup", (event) => {
      if (!from) return;
      const edges = between(from, place(event));
      from = null;
      if (edges[2] - edges[0] > 0.02 && edges[3] - edges[1] > 0.02) {
        change({ region: edges.map((each) => each.toFixed(3)).join() });
      } else {
        draw(given);
      }
    });
    marker.addEventListener("pointercancel", () => {
      from = null;
      draw(given);
    });
  }

  function searchPart(button) {
    const inputs = button.closest(".query").querySelectorAll("[data-edge]");
    const edges = [...inputs].map((each) => (Number(each.value) / 100).toFixed(2));
    wanted = "#results";
    change({ region: edges.join() === "0.00,0.00,1.00,1.00" ? null : edges.join() });
  }

  // --- the visitor's own picture ---

  function state(text, trouble = false) {
    const line = find("#picture [data-state]");
    line.textContent = text;
    line.classList.toggle("trouble", trouble);
  }

  // What the server answers; `progress` is told how much has been sent, from 0 to 1.
  function send(method, url, body, progress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open(method, url);
      request.upload.onprogress = (event) => progress?.(event.loaded / event.total);
      request.onload = () => {
        if (request.status < 300) return resolve(request.responseText);
        let detail = `the server answered ${request.status}`;
        try {
          detail = JSON.parse(request.responseText).detail ?? detail;
        } catch {
          // Not from the service itself: a proxy's page, say.
        }
        reject(new Error(detail));
      };
      request.onerror = () => reject(new Error("the server is not reached"));
      request.send(body);
    });
  }

  async function hold(file) {
    if (!file) return;
    state("Sending…");
    try {
      const answer = await send("POST", "pictures", file, (part) => {
        state(`Sending… ${Math.round(part * 100)} %`);
      });
      state("");
      wanted = "#results";
      change({ picture: JSON.parse(answer).picture, id: null, region: null });
    } catch (error) {
      state(error.message, true);
    }
  }

  async function photograph() {
    const camera = find("[data-camera]");
    const onPhone = matchMedia("(pointer: coarse)").matches;
    if (onPhone || !navigator.mediaDevices?.getUserMedia) return find("[data-capture]").click();
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: true });
      find("video", camera).srcObject = stream;
      camera.addEventListener("close", () => stream.getTracks().forEach((each) => each.stop()), { once: true });
      camera.showModal();
    } catch (error) {
      state(`No camera can be used: ${error.message}`, true);
    }
  }

  function shoot() {
    const camera = find("[data-camera]");
    const video = find("video", camera);
    if (!video.videoWidth) return;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob(hold, "image/jpeg", 0.92);
    camera.close();
  }

  function dragged(event) {
    const isFile = event.dataTransfer?.types.includes("Files");
    if (!isFile || event.target.closest?.("[data-adding]")) return;
    event.preventDefault();
    find("[data-drop]")?.classList.toggle("over", event.type === "dragover");
    if (event.type === "drop") hold(event.dataTransfer.files[0]);
  }

  function pasted(event) {
    const picture = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (!picture) return;
    event.preventDefault();
    hold(picture);
  }

  // --- adding to the collection ---

  let cancelled = false;
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  // So many files at once as one request may hold.
  function portions(files, most) {
    const room = most - 65536; // for what a form adds
    const all = [[]];
    let size = 0;
    for (const file of files) {
      size += file.size + 1024;
      if (size > room && all.at(-1).length) {
        all.push([]);
        size = file.size + 1024;
      }
      all.at(-1).push(file);
    }
    return all;
  }

  async function add(form) {
    const files = [...form.elements.files.files];
    const [bar, line, list] = [find("progress", form), find("[data-state]", form), find("[data-rejected]", form)];
    const [submit, cancel] = form.querySelectorAll("button");
    const parts = portions(files, Number(form.dataset.most));
    const sums = { added: 0, rejected: 0 };
    cancelled = false;
    list.replaceChildren();
    line.classList.remove("trouble");
    [submit.disabled, cancel.hidden, bar.hidden] = [true, false, false];
    try {
      for (const [number, part] of parts.entries()) {
        if (cancelled) break;
        const tell = (done, text) => {
          bar.value = (number + done) / parts.length;
          line.textContent = text;
        };
        await addPart(form, part, tell, sums, list);
      }
      line.textContent = `${cancelled ? "Cancelled: " : ""}${sums.added} added, ${sums.rejected} could not be used.`;
      form.elements.files.value = "";
      find("#visit").click();
    } catch (error) {
      line.textContent = error.message;
      line.classList.add("trouble");
    } finally {
      [submit.disabled, cancel.hidden, bar.hidden] = [false, true, true];
    }
  }

  async function addPart(form, files, tell, sums, list) {
    const body = new FormData();
    for (const file of files) body.append("files", file);
    body.append("description", form.elements.description.value);
    const url = `v1/collections/${form.dataset.adding}/uploads`;
    const sent = await send("POST", url, body, (part) => tell(part / 2, `Sending… ${Math.round(part * 100)} %`));
    let job = JSON.parse(sent);
    while (!["done", "failed", "cancelled"].includes(job.state)) {
      tell(0.5 + job.finished / (job.found || 1) / 2, `${job.finished} of ${job.found} done`);
      await pause(300);
      job = JSON.parse(await send(cancelled ? "DELETE" : "GET", `v1/jobs/${job.id}`));
    }
    sums.added += job.finished - job.rejected;
    sums.rejected += job.rejected;
    if (job.rejected) await listRejected(job, list);
    if (job.error) throw new Error(job.error);
  }

  async function listRejected(job, list) {
    const report = await send("GET", `v1/jobs/${job.id}/report`);
    for (const text of report.split("\n").filter(Boolean)) {
      const line = JSON.parse(text);
      if (line.status !== "rejected") continue;
      const item = document.createElement("li");
      item.textContent = `${line.name}: ${line.reason}`;
      list.append(item);
    }
  }

  // --- what the visitor does ---

  const ACTIONS = {
    part: searchPart,
    whole: () => change({ region: null }),
    photograph,
    shoot,
    "close-camera": () => find("[data-camera]").close(),
    "no-filters": () => {
      const given = params();
      given.delete("where");
      visit(address(given));
    },
    "cancel-adding": () => {
      cancelled = true;
    },
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-visit]");
    const action = event.target.closest("[data-do]");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
      event.preventDefault();
      visit(link.search || "?");
    } else if (action) {
      ACTIONS[action.dataset.do](action);
    }
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-choose], [data-capture]")) {
      hold(event.target.files[0]);
      event.target.value = "";
    } else if (event.target.matches("[data-field]")) {
      find("#ask").click();
    }
  });
  document.addEventListener("submit", (event) => {
    event.preventDefault();
    if (event.target.matches("[data-adding]")) add(event.target);
    else if (event.target.matches("[data-filters]")) find("#ask").click();
  });
  for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, dragged);
  document.addEventListener("paste", pasted);
  addEventListener("popstate", show);

  // Gradio replaces the parts of the page.
  new MutationObserver(() => {
    if (!told.isConnected) document.body.append(told);
    for (const marker of document.querySelectorAll("[data-marker]:not([data-ready])")) {
      marker.dataset.ready = "";
      setUp(marker);
    }
  }).observe(document.body, { childList: true, subtree: true });

  window.imgsearch = { ask, answered };
})();
