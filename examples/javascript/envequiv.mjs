// Serves an environment to pytest-envequiv: msgpack, frames and labelled draws, with plain Node.js.
// Copy this file next to your environment and call serve({...}) as mountain_car.mjs does. README.md has the protocol.

// Frames own stdout, so whatever the environment prints goes to stderr.
const write = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);

// ---- msgpack -------------------------------------------------------------------------------------------------------

let bytes = Buffer.allocUnsafe(4096); // encode() writes here, and it grows
let used = 0;

/** Where the next `count` bytes go. */
function room(count) {
  if (used + count > bytes.length) bytes = Buffer.concat([bytes], 2 * (used + count));
  return (used += count) - count;
}

/** A tag, then the unsigned integer `n` in `width` bytes (0: the tag says it all). */
function tagged(tag, n = 0, width = 0) {
  const at = room(1 + width);
  bytes[at] = tag;
  if (width > 0) bytes.writeUIntBE(n, at + 1, width);
}

/** A tag and a length: within the tag if below `limit`, else behind the first of `tags` (1, 2, 4 bytes) it fits. */
function sized(n, limit, short, tags) {
  if (n < limit) return tagged(short | n);
  const i = n < 2 ** 8 && tags[0] ? 0 : n < 2 ** 16 ? 1 : 2;
  tagged(tags[i], n, 2 ** i);
}

function put(value) {
  if (value === null || value === undefined) tagged(0xc0);
  else if (typeof value === "boolean") tagged(value ? 0xc3 : 0xc2);
  else if (typeof value === "number" || typeof value === "bigint") putNumber(value);
  else if (typeof value === "string") {
    const size = Buffer.byteLength(value);
    sized(size, 32, 0xa0, [0xd9, 0xda, 0xdb]);
    const at = room(size); // before `bytes` is looked at: room() may replace it
    bytes.write(value, at);
  } else if (value instanceof Uint8Array) {
    sized(value.length, 0, 0, [0xc4, 0xc5, 0xc6]);
    const at = room(value.length);
    bytes.set(value, at);
  } else if (Array.isArray(value) || ArrayBuffer.isView(value)) {
    sized(value.length, 16, 0x90, [0, 0xdc, 0xdd]);
    for (const item of value) put(item);
  } else if (typeof value === "object") {
    const entries = Object.entries(value);
    sized(entries.length, 16, 0x80, [0, 0xde, 0xdf]);
    for (const item of entries.flat(1)) put(item);
  } else throw new Error(`a ${typeof value} cannot be sent`);
}

function putNumber(n) {
  // -0 is a float, as an integer it would lose its sign; so is a whole number too large to be exact.
  if (typeof n === "number" && (!Number.isSafeInteger(n) || Object.is(n, -0))) {
    const at = room(9);
    bytes[at] = 0xcb;
    return bytes.writeDoubleBE(n, at + 1);
  }
  if (n >= -0x20 && n < 0x80) return tagged(Number(n) & 0xff);
  for (const i of [0, 1, 2]) {
    const span = 2 ** (8 << i);
    if (n >= 0 && n < span) return tagged(0xcc + i, Number(n), 2 ** i);
    if (n < 0 && n >= -span / 2) return tagged(0xd0 + i, Number(n) + span, 2 ** i);
  }
  if (n < -(2n ** 63n) || n >= 2n ** 64n) throw new Error(`${n} does not fit into 64 bits`);
  const at = room(9);
  bytes[at] = n < 0 ? 0xd3 : 0xcf;
  bytes.writeBigUInt64BE(BigInt.asUintN(64, BigInt(n)), at + 1);
}

/** `value` as msgpack. Uint8Array is binary; other typed arrays are lists; undefined is null. */
export function encode(value) {
  used = 0;
  put(value);
  return Buffer.from(bytes.subarray(0, used));
}

/** The value in `buffer`. Integers that a number cannot hold exactly become BigInt. */
export function decode(buffer) {
  let at = 0;
  const skip = (count) => (at += count) - count;
  const unsigned = (width) => buffer.readUIntBE(skip(width), width);
  const signed = (width) => buffer.readIntBE(skip(width), width);
  const exact = (big) => (Number.isSafeInteger(Number(big)) ? Number(big) : big);
  const binary = (size) => Buffer.from(buffer.subarray(skip(size), at));
  const text = (size) => binary(size).toString();
  const list = (size) => Array.from({ length: size }, next);
  const map = (size) => Object.fromEntries(Array.from({ length: size }, () => [next(), next()]));
  function next() {
    const tag = unsigned(1);
    if (tag < 0x80) return tag;
    if (tag < 0x90) return map(tag & 0x0f);
    if (tag < 0xa0) return list(tag & 0x0f);
    if (tag < 0xc0) return text(tag & 0x1f);
    if (tag >= 0xe0) return tag - 0x100;
    if (tag === 0xc0) return null;
    if (tag === 0xc2 || tag === 0xc3) return tag === 0xc3;
    if (tag >= 0xc4 && tag <= 0xc6) return binary(unsigned(2 ** (tag - 0xc4)));
    if (tag === 0xca) return buffer.readFloatBE(skip(4));
    if (tag === 0xcb) return buffer.readDoubleBE(skip(8));
    if (tag >= 0xcc && tag <= 0xce) return unsigned(2 ** (tag - 0xcc));
    if (tag === 0xcf) return exact(buffer.readBigUInt64BE(skip(8)));
    if (tag >= 0xd0 && tag <= 0xd2) return signed(2 ** (tag - 0xd0));
    if (tag === 0xd3) return exact(buffer.readBigInt64BE(skip(8)));
    if (tag >= 0xd9 && tag <= 0xdb) return text(unsigned(2 ** (tag - 0xd9)));
    if (tag === 0xdc || tag === 0xdd) return list(unsigned(tag === 0xdc ? 2 : 4));
    if (tag === 0xde || tag === 0xdf) return map(unsigned(tag === 0xde ? 2 : 4));
    throw new Error(`msgpack tag 0x${tag.toString(16)} is not supported`);
  }
  return next();
}

// ---- frames: the length in four bytes (big-endian), then one msgpack value -----------------------------------------

export async function* receive(stream = process.stdin) {
  let parts = [];
  let size = 0;
  let wanted = 4;
  for await (const chunk of stream) {
    parts.push(chunk);
    size += chunk.length;
    while (size >= wanted) {
      const all = Buffer.concat(parts);
      const end = 4 + all.readUInt32BE(0);
      if (size >= end) yield decode(all.subarray(4, end));
      parts = [size >= end ? all.subarray(end) : all];
      wanted = size >= end ? 4 : end;
      size = parts[0].length;
    }
  }
}

export function send(value) {
  const body = encode(value);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  write(Buffer.concat([head, body]));
}

// ---- draws: the randomness of one row, from its seed or from a tape, and written down ------------------------------

class Draws {
  /** `tape`: this row's [{kind, value}], or null to draw from `seed`. */
  constructor(seed, tape) {
    this.word = seed;
    this.tape = tape;
    this.made = [];
  }

  /** low <= x < high. */
  uniform(low, high) {
    return this.#draw("uniform", low, high, () => low + (high - low) * this.#random());
  }

  /** low..high-1. */
  integers(low, high) {
    return this.#draw("integers", low, high, () => low + Math.floor((high - low) * this.#random()));
  }

  /** [0, 1) with 53 random bits. */
  #random() {
    return ((this.#bits() >>> 5) * 2 ** 26 + (this.#bits() >>> 6)) / 2 ** 53;
  }

  /** mulberry32, a small generator of 32 bits. */
  #bits() {
    this.word = (this.word + 0x6d2b79f5) | 0;
    let z = Math.imul(this.word ^ (this.word >>> 15), this.word | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return (z ^ (z >>> 14)) >>> 0;
  }

  /** The kind, not the position, says which entry of the tape is meant; what the tape does not hold is an error. */
  #draw(kind, low, high, fresh) {
    const site = new Error().stack.split("\n")[3].match(/([^/\\(]+:\d+):\d+\)?$/)?.[1]; // who called uniform()
    const place = this.tape?.findIndex((entry) => entry.kind === kind);
    if (place === -1) throw new Error(`the tape holds no ${kind} draw for ${site}`);
    const value = this.tape ? this.tape.splice(place, 1)[0].value : fresh();
    this.made.push({ kind, site, low, high, value });
    return value;
  }
}

/** The scalar draws in row `i` of a tape. */
function tapeOfRow(tape, i) {
  const made = tape.filter((draw) => draw.present[i] && draw.shape.length === 0);
  return made.map(({ kind, value }) => ({ kind, value: value[i] }));
}

/** The draws of all rows as one tape: an entry for each site, and for each time that a row passed it. */
function joined(rows) {
  const tape = new Map();
  for (const [i, made] of rows.entries()) {
    const passed = {};
    for (const { kind, site, ...numbers } of made) {
      passed[site] = (passed[site] ?? 0) + 1;
      const key = `${kind} ${site} ${passed[site]}`;
      if (!tape.has(key)) tape.set(key, { kind, site, shape: [], present: rows.map(() => false) });
      const entry = tape.get(key);
      entry.present[i] = true;
      for (const name in numbers) (entry[name] ??= rows.map(() => 0))[i] = numbers[name];
    }
  }
  return [...tape.values()];
}

// ---- serve ---------------------------------------------------------------------------------------------------------

/** {name: [row, row, ...]} to one {name: row}, and back. */
const rowOf = (columns, i) => Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, column[i]]));
const columnsOf = (rows) =>
  Object.fromEntries(Object.keys(rows[0] ?? {}).map((name) => [name, rows.map((row) => row[name])]));

/**
 * Serve an environment written for one row at a time, until the other side is done.
 *
 * reset(draws) and step(state, action, draws) return {state, outputs} or a promise of it; state, outputs and action
 * are {name: value}. The other keys of the argument answer hello. An exception becomes an {error} answer.
 */
export async function serve({ reset, step, ...hello }) {
  async function answer({ op, seeds, state, action, tape }) {
    // "lists": arrays come as plain nested lists.
    if (op === "hello") return { version: 1, state: "fields", draws: "tape", arrays: "lists", ...hello };
    const draws = seeds.map((seed, i) => new Draws(seed, tape ? tapeOfRow(tape, i) : null));
    const results = [];
    for (const [i, own] of draws.entries()) {
      results.push(await (op === "reset" ? reset(own) : step(rowOf(state, i), rowOf(action, i), own)));
    }
    return {
      state: columnsOf(results.map((result) => result.state)),
      outputs: columnsOf(results.map((result) => result.outputs)),
      draws: joined(draws.map((own) => own.made)),
    };
  }
  for await (const request of receive()) {
    if (request.op === "close") break;
    send(await answer(request).catch((error) => (console.error(error), { error: String(error.message) })));
  }
  process.exit(0); // also where the environment left a timer or a socket open
}
