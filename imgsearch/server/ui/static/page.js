// What the visitor does becomes an address, and the server shows what is at an address.
// Gradio carries it: its hidden buttons #visit, #ask and #look ask for the view at the present
// address. #visit also sets the words, the bounds and the filters by it; #look, the filters alone.
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

  // Change some of the address; null removes. The answer is what the visitor waits for.
  function change(changes) {
    wanted = "#results";
    const given = params();
    for (const [name, value] of Object.entries(changes)) {
      value === null ? given.delete(name) : given.set(name, value);
    }
    go(address(given));
    find("#ask").click();
  }

  // The address of what the controls are set to, which becomes the page's own.
  // A number that is still being typed, or out of bounds, is one that may stand there.
  function ask(words, k, least) {
    const given = params();
    const number = Math.min(200, Math.round(Number(k))) || 24;
    const score = Math.min(1, Number(least)) || 0;
    const before = given.get("q") ?? "";
    const filters = find("[data-filters]");
    const set = (name, value) => (value ? given.set(name, value) : given.delete(name));
    set("q", words.trim());
    set("k", number === 24 ? "" : String(Math.max(1, number)));
    set("min_score", score > 0 ? String(score) : "");
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
    failed.replaceChildren();
    state("");
  }

  const told = document.createElement("p");
  told.id = "told";
  told.className = "sr";
  told.setAttribute("aria-live", "polite");

  // What kept an answer from coming: it stands above the answer before.
  const failed = document.createElement("p");
  failed.id = "failed";
  failed.className = "trouble";
  failed.setAttribute("role", "alert");

  // On a phone the answer may be out of sight.
  const jump = document.createElement("a");
  jump.id = "jump";
  jump.href = "#results";
  jump.hidden = true;
  const outOfSight = () => find("#results")?.getBoundingClientRect().top > innerHeight - 40;

  // The answer is there, or there is none; the browser has yet to show it.
  const answered = () => requestAnimationFrame(() => setTimeout(settle));

  // Gradio tells of an answer, but not of one that did not come.
  let underWay = 0;
  const fetched = window.fetch;
  window.fetch = async (...given) => {
    const isQuestion = String(given[0]?.url ?? given[0]).includes("/run/predict");
    if (!isQuestion) return fetched(...given);
    underWay += 1;
    try {
      const answer = await fetched(...given);
      if (!answer.ok) fail(await reasonOf(answer.clone()));
      return answer;
    } catch (error) {
      fail("The server is not reached.");
      throw error;
    } finally {
      underWay -= 1;
    }
  };

  async function reasonOf(answer) {
    return detailOf(await answer.text()) ?? `The server answered ${answer.status}.`;
  }

  // What a problem+json tells.
  function detailOf(text) {
    try {
      return JSON.parse(text).detail;
    } catch {
      return undefined; // not from the service itself: a proxy's page, say
    }
  }

  function fail(reason) {
    find("#results")?.removeAttribute("aria-busy");
    const again = document.createElement("a");
    again.href = address(params());
    again.dataset.visit = "";
    again.textContent = "Try again";
    failed.replaceChildren(`${reason} `, again);
    if (failed.getBoundingClientRect().top > innerHeight - 40) failed.scrollIntoView();
  }

  function settle() {
    const results = find("#results");
    const at = find("[data-at]", results)?.dataset.at;
    // Of what was asked for in a hurry, the last is what the address tells.
    if (!underWay && at !== undefined && at !== location.search) return show();
    results.removeAttribute("aria-busy");
    const tells = find("[data-told]", results)?.textContent ?? "";
    told.textContent = tells;
    document.title = `${titleOf(params(), tells)}imgsearch`;
    jump.textContent = `${tells} ↓`;
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
    jump.hidden = !tells || !outOfSight();
  }

  function titleOf(given, tells) {
    if (given.get("q")) return `${given.get("q")} – `;
    return given.size ? `${tells} – ` : "";
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
        const error = new Error(detailOf(request.responseText) ?? `the server answered ${request.status}`);
        error.status = request.status;
        error.after = Number(request.getResponseHeader("Retry-After")) * 1000;
        reject(error);
      };
      request.onerror = () => reject(Object.assign(new Error("the server is not reached"), { status: 0 }));
      request.send(body);
    });
  }

  const BUSY = [429, 503];
  const AWAY = [...BUSY, 0, 502, 504]; // a proxy's, or a network's
  const PATIENCE = 120_000;

  // As `send`, but a server with one of these `states` is asked again, for two minutes.
  async function persist(states, ...request) {
    const until = performance.now() + PATIENCE;
    for (let wait = 500; ; wait = Math.min(2 * wait, 10_000)) {
      try {
        return await send(...request);
      } catch (error) {
        const next = error.after || wait;
        if (!states.includes(error.status) || performance.now() + next > until) throw error;
        await pause(next);
      }
    }
  }

  async function hold(file) {
    if (!file) return;
    state("Sending…");
    try {
      const answer = await persist(BUSY, "POST", "pictures", file, (part) => {
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
    const adding = event.target.closest?.("[data-adding]");
    if (!isFile || event.target.matches?.("input[type=file]")) return;
    event.preventDefault();
    find("[data-drop]")?.classList.toggle("over", event.type === "dragover" && !adding);
    if (event.type !== "drop") return;
    const { files, items } = event.dataTransfer;
    const isFolder = [...items].some((each) => each.webkitGetAsEntry?.()?.isDirectory);
    if (adding && !isFolder) adding.elements.files.files = files;
    else if (isFolder) (adding ? tellAdding : state)("Folders can't be dropped here: choose the images in it.", true);
    else hold(files[0]);
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

  function tellAdding(text, trouble = false) {
    const line = find("[data-adding] [data-state]");
    line.textContent = text;
    line.classList.toggle("trouble", trouble);
  }

  let adding = false;

  async function add(form) {
    if (adding) return;
    const [bar, list] = [find("progress", form), find("[data-rejected]", form)];
    const [submit, cancel] = form.querySelectorAll("button");
    const most = Number(form.dataset.most);
    const files = [...form.elements.files.files];
    const small = files.filter((file) => file.size <= most - 131072);
    const sums = { added: 0, skipped: 0, rejected: 0, left: 0, unknown: 0 };
    const troubles = [];
    [adding, cancelled] = [true, false];
    list.replaceChildren();
    for (const file of files.filter((each) => !small.includes(each))) {
      sums.rejected += 1;
      reject(list, file.name, `it is larger than the ${Math.floor(most / 1048576)} MiB that the service takes at once`);
    }
    // Not `disabled`: what has the focus would lose it.
    submit.setAttribute("aria-disabled", "true");
    [cancel.hidden, bar.hidden] = [false, false];
    const parts = small.length ? portions(small, most) : [];
    for (const [number, part] of parts.entries()) {
      if (cancelled) {
        sums.left += part.length;
        continue;
      }
      const tell = (done, text) => {
        bar.value = (number + done) / parts.length;
        tellAdding(text);
      };
      try {
        await addPart(form, part, tell, sums, list);
      } catch (error) {
        sums[error.isUnknown ? "unknown" : "left"] += part.length;
        if (!troubles.includes(error.message)) troubles.push(error.message);
      }
    }
    const left = sums.left ? ` ${sums.left} were not added or not in full; choose them again to continue.` : "";
    const there = sums.skipped ? `, ${sums.skipped} were there already` : "";
    const unknown = sums.unknown ? ` ${sums.unknown} were sent, and may still be added: the server could not be asked.` : "";
    const sum = `${sums.added} added${there}, ${sums.rejected} could not be used.${left}${unknown}`;
    tellAdding([cancelled ? `Cancelled: ${sum}` : sum, ...troubles].join(" "), troubles.length > 0);
    if (!troubles.length) form.reset();
    if (cancel === document.activeElement) submit.focus();
    submit.removeAttribute("aria-disabled");
    [cancel.hidden, bar.hidden] = [true, true];
    adding = false;
    find("#look").click();
  }

  async function addPart(form, files, tell, sums, list) {
    const body = new FormData();
    for (const file of files) body.append("files", file);
    body.append("description", form.elements.description.value);
    const url = `v1/collections/${form.dataset.adding}/uploads`;
    const sent = await persist(BUSY, "POST", url, body, (part) => tell(part / 2, `Sending… ${Math.round(part * 100)} %`));
    const job = await finished(JSON.parse(sent), tell);
    sums.added += job.finished - job.rejected - job.skipped;
    sums.skipped += job.skipped;
    sums.rejected += job.rejected;
    if (job.rejected) await listRejected(job, list);
    if (job.error) throw new Error(job.error);
  }

  // The job once it has ended. The server goes on with it whether it is asked or not.
  async function finished(job, tell) {
    try {
      while (!["done", "failed", "cancelled"].includes(job.state)) {
        tell(0.5 + job.finished / (job.found || 1) / 2, `${job.finished} of ${job.found} done`);
        await pause(300);
        job = JSON.parse(await persist(AWAY, cancelled ? "DELETE" : "GET", `v1/jobs/${job.id}`));
      }
      return job;
    } catch (error) {
      throw Object.assign(error, { isUnknown: true });
    }
  }

  async function listRejected(job, list) {
    const report = await persist(AWAY, "GET", `v1/jobs/${job.id}/report`);
    for (const text of report.split("\n").filter(Boolean)) {
      const line = JSON.parse(text);
      if (line.status === "rejected") reject(list, line.name, line.reason);
    }
  }

  function reject(list, name, reason) {
    const item = document.createElement("li");
    item.textContent = `${name}: ${reason}`;
    list.append(item);
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
    if (event.target.closest("#search")) wanted = "#results";
    if (event.target === jump) {
      event.preventDefault();
      find("#results").scrollIntoView();
    } else if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
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
    } else if (event.target.matches("[data-field]") && event.target.form.reportValidity()) {
      find("#ask").click();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.closest?.("#words")) wanted = "#results";
  });
  document.addEventListener("submit", (event) => {
    event.preventDefault();
    if (event.target.matches("[data-adding]")) add(event.target);
    else if (event.target.matches("[data-filters]")) find("#ask").click();
  });
  for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, dragged);
  document.addEventListener("paste", pasted);
  addEventListener("popstate", show);
  addEventListener("scroll", () => jump.hidden || (jump.hidden = !outOfSight()), { passive: true });

  // A record's file may be gone, or be another one than was indexed: the service says so by a 404.
  document.addEventListener("error", async ({ target }) => {
    if (!target.matches?.("img[src*='/records/']")) return;
    const answer = await fetch(target.src).catch(() => null);
    if (answer?.status !== 404 || target.hidden) return;
    const note = document.createElement("span");
    note.className = "missing";
    note.textContent = "The file is gone, or has changed since it was indexed";
    target.hidden = true;
    target.after(note);
  }, true);

  // Gradio replaces the parts of the page.
  new MutationObserver(() => {
    if (!told.isConnected) document.body.append(told, jump);
    if (!failed.isConnected) find("#answer")?.prepend(failed);
    for (const head of document.querySelectorAll("#question .label-wrap")) {
      const open = String(head.classList.contains("open"));
      if (head.getAttribute("aria-expanded") !== open) head.setAttribute("aria-expanded", open);
    }
    for (const marker of document.querySelectorAll("[data-marker]:not([data-ready])")) {
      marker.dataset.ready = "";
      setUp(marker);
    }
  }).observe(document.body, { childList: true, subtree: true, attributeFilter: ["class"] });

  window.imgsearch = { ask, answered };
})();
