"""The page that runs models in a browser: its HTML, and its JavaScript as text.

Text, since runners are sent to the device as source, without data files.
"""

from __future__ import annotations

HTML = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>edgecheck</title>
<script type="module" src="page.mjs"></script>
</html>
"""

# `edgecheck.call(method, arguments)` answers {value} or {error}. Bytes travel as blobs: the page
# fetches blob/NAME and puts blob/outputs.
SCRIPT = r"""
const memories = [];
const Memory = WebAssembly.Memory;
WebAssembly.Memory = class extends Memory {
  constructor(descriptor) {
    super(descriptor);
    memories.push(this);
  }
};

// The runtime keeps the console's functions from when it is loaded: they are replaced before.
let log = null;
for (const level of ["debug", "info", "log", "warn", "error"]) {
  const original = console[level].bind(console);
  console[level] = (...words) => (log ? log.push(words.join(" ")) : original(...words));
}

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, bool: Uint8Array,
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array,
  int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array,
};

let ort = null;
let provider = "wasm";
const sessions = new Map();

async function blob(name) {
  const answer = await fetch(`blob/${name}`);
  if (!answer.ok) throw new Error(`the page can't fetch ${name}: ${answer.status}`);
  return answer.arrayBuffer();
}

function nanoseconds(start, end) {
  return Math.round((end - start) * 1e6);
}

// The smallest step that the clock was seen to make.
function grain_ms() {
  let least = Infinity;
  for (let found = 0; found < 20; ) {
    const start = performance.now();
    let end = start;
    while (end === start) end = performance.now();
    least = Math.min(least, end - start);
    found += 1;
  }
  return least;
}

// A size, or null where it is open: a name, or the runtime's -1, which it gives as 2^32 - 1.
function fixed(size) {
  return typeof size === "number" && size >= 0 && size < 2 ** 32 - 1 ? size : null;
}

function create(model, settings) {
  return ort.InferenceSession.create(new Uint8Array(model), {
    executionProviders: [provider],
    graphOptimizationLevel: settings.optimize ? "all" : "disabled",
    logSeverityLevel: settings.verbose ? 0 : 3,
    externalData: (settings.external ?? []).map(({ path, data }) => ({ path, data })),
  });
}

async function adapterOf(wanted) {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("this browser finds no WebGPU adapter");
  const { vendor, architecture, device, description } = adapter.info;
  const software = adapter.info.isFallbackAdapter ?? adapter.isFallbackAdapter ?? false;
  const named = [vendor, architecture, device, description].filter(Boolean).join(" ");
  const isSoftware = software || /swiftshader|llvmpipe/i.test(named);
  if (wanted === "hardware" && isSoftware) {
    throw new Error(`the only WebGPU adapter is a software one (${named})`);
  }
  return { adapter: named, software: isSoftware, float16: adapter.features.has("shader-f16") };
}

const methods = {
  adapter: ({ wanted }) => adapterOf(wanted),

  async start({ module, threads, wanted }) {
    if (!crossOriginIsolated) throw new Error("the page is not cross-origin isolated");
    provider = wanted ? "webgpu" : "wasm";
    const about = wanted ? await adapterOf(wanted) : {};
    ort = await import(module);
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = new URL("runtime/", location.href).href;
    return { ...about, version: ort.env.versions.web, clock_grain_ns: nanoseconds(0, grain_ms()) };
  },

  async load({ id, model, external, optimize }) {
    const content = await blob(model);
    const mounted = [];
    for (const item of external) {
      mounted.push({ path: item.path, data: new Uint8Array(await blob(item.blob)) });
    }
    const start = performance.now();
    const session = await create(content, { optimize, external: mounted });
    const load_ns = nanoseconds(start, performance.now());
    sessions.set(id, { session, feeds: null, content, mounted, optimize });
    const describe = (items) =>
      items.map(({ name, isTensor, type, shape }) => ({
        name,
        dtype: isTensor ? type : "no tensor",
        shape: isTensor ? shape.map(fixed) : [],
      }));
    return {
      load_ns,
      inputs: describe(session.inputMetadata),
      outputs: describe(session.outputMetadata),
    };
  },

  // Forget the file's bytes: the runtime has its own copy.
  settle({ id }) {
    Object.assign(sessions.get(id), { content: null, mounted: [] });
  },

  async release({ id }) {
    const { session } = sessions.get(id);
    sessions.delete(id);
    await session.release();
  },

  async feed({ id, inputs }) {
    const content = await blob("inputs");
    const feeds = {};
    for (const { name, dtype, shape, start, size } of inputs) {
      const bytes = content.slice(start, start + size);
      const values = dtype === "string" ? [] : new ARRAYS[dtype](bytes);
      feeds[name] = new ort.Tensor(dtype, values, shape);
    }
    sessions.get(id).feeds = feeds;
  },

  async infer({ id, runs }) {
    const { session, feeds } = sessions.get(id);
    for (let run = 0; run < runs; run += 1) await session.run(feeds);
  },

  async outputs({ id }) {
    const { session, feeds } = sessions.get(id);
    const results = await session.run(feeds);
    const parts = [];
    const described = [];
    for (const name of session.outputNames) {
      const tensor = results[name];
      if (!(tensor.type in ARRAYS)) throw new Error(`output ${name} is of type ${tensor.type}`);
      const data = await tensor.getData();
      parts.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      described.push({
        name, dtype: tensor.type, shape: [...tensor.dims], size: data.byteLength,
      });
    }
    const answer = await fetch("blob/outputs", { method: "PUT", body: new Blob(parts) });
    if (!answer.ok) throw new Error(`the page can't send outputs: ${answer.status}`);
    return described;
  },

  // What the runtime says when it places operators, which it does only at its most talkative.
  async places({ id }) {
    const { content, mounted, optimize } = sessions.get(id);
    const lines = (log = []);
    try {
      const session = await create(content, { optimize, external: mounted, verbose: true });
      await session.release();
    } finally {
      log = null;
    }
    return lines.filter((line) => line.includes("VerifyEachNodeIsAssignedToAnEp"));
  },

  // The first inference, then windows until two in a row bring no new minimum.
  async warm({ id, window_ms, least_ms, limit_ms, steady }) {
    const { session, feeds } = sessions.get(id);
    const begun = performance.now();
    await session.run(feeds);
    let call_ms = performance.now() - begun;
    const first_ns = Math.round(call_ms * 1e6);
    const warm = performance.now();
    let best = Infinity, runs = 0, level = 0;
    while (level < 2 || performance.now() - warm < least_ms) {
      const calls = Math.min(100, Math.max(1, Math.floor(window_ms / Math.max(call_ms, 1e-3))));
      const start = performance.now();
      for (let call = 0; call < calls; call += 1) await session.run(feeds);
      call_ms = (performance.now() - start) / calls;
      runs += calls;
      level = call_ms >= steady * best ? level + 1 : 0;
      best = Math.min(best, call_ms);
      if (performance.now() - warm > limit_ms && runs >= 3) break;
    }
    return { first_ns, warmup_runs: runs, steady: level >= 2, call_ns: Math.round(call_ms * 1e6) };
  },

  // Totals of `calls` inferences each, for so long, but two at least.
  async sample({ id, calls, duration_ms, most }) {
    const { session, feeds } = sessions.get(id);
    const wall_ns = [];
    const deadline = performance.now() + duration_ms;
    let end = 0;
    while ((end < deadline && wall_ns.length < most) || wall_ns.length < 2) {
      const start = performance.now();
      for (let call = 0; call < calls; call += 1) await session.run(feeds);
      end = performance.now();
      wall_ns.push(nanoseconds(start, end));
    }
    return wall_ns;
  },

  memory: () => memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0),
};

// Errors of the runtime may be numbers: a C++ exception's address.
function sentence(error) {
  if (typeof error === "number") return `the runtime stopped with exception ${error}`;
  return String(error?.message ?? error);
}

globalThis.edgecheck = {
  async call(method, given) {
    try {
      return { value: (await methods[method](given)) ?? null };
    } catch (error) {
      return { error: sentence(error) };
    }
  },
};
"""
