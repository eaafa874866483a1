// An HTTP server and its own client, until it is killed: JSON, regular expressions, buffers, zlib,
// timers, crypto, and functions that run long enough to be compiled.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const zlib = require('node:zlib');

const document = {
  users: Array.from({ length: 40 }, (_, id) => ({ id, name: `user ${id}`, scores: [id / 3, id / 7] })),
};

class Shape {
  constructor(depth) { this.depth = depth; }
  visit() { return this.depth > 0 ? shapes[this.depth % shapes.length](this.depth - 1) : 1; }
}

function parse(depth) {
  const copy = JSON.parse(JSON.stringify(document));
  return copy.users.length + new Shape(depth).visit();
}

function match(depth) {
  const expression = new RegExp(`(\\w+)-(\\d{1,${1 + depth}})`, 'gu');
  const text = document.users.map((user) => `word-${user.id * 77}`).join(' ');
  return text.replace(expression, (all, word, digits) => digits + Buffer.from(word).toString('hex')).length;
}

function buffers(depth) {
  const parts = document.users.map((user) => Buffer.alloc(20000 + user.id, user.name));
  const whole = Buffer.concat(parts);
  const numbers = new Float64Array(3000).map((_, index) => index * depth).sort();
  return whole.readUInt32LE(8) + numbers[5] + new Shape(depth).visit();
}

function compress(depth) {
  const text = JSON.stringify(document).repeat(1 + depth % 3);
  const packed = depth % 2 ? zlib.gzipSync(text) : zlib.brotliCompressSync(text, {
    params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 3 },
  });
  return packed.length + crypto.createHash('sha256').update(packed).digest('hex').length;
}

function maps(depth) {
  const map = new Map(document.users.map((user) => [user.name, new Set([user.id])]));
  const sorted = [...map.keys()].sort((a, b) => a.localeCompare(b));
  return sorted.length + Intl.NumberFormat('en').format(depth * 1234.5).length + new Shape(depth).visit();
}

function fail(depth) {
  try {
    if (depth % 2) throw new RangeError(`on purpose at ${depth}`);
    return new Shape(depth).visit();
  } catch (error) {
    return error.stack.length;
  }
}

const shapes = [parse, match, buffers, compress, maps, fail];

const server = http.createServer((request, response) => {
  const depth = Number(request.url.slice(1)) || 0;
  const body = [];
  request.on('data', (part) => body.push(part));
  request.on('end', () => {
    const value = shapes[depth % shapes.length](depth % 7);
    fs.stat(__filename, (_, found) => {
      const text = JSON.stringify({ value, size: found.size, document, length: Buffer.concat(body).length });
      if (depth % 3) return void response.end(text);
      response.setHeader('content-encoding', 'gzip');
      zlib.gzip(text, (_, packed) => response.end(packed));
    });
  });
});

let round = 0;
function ask(port) {
  const options = { port, path: `/${round++}`, method: 'POST', agent: round % 5 ? undefined : false };
  const request = http.request(options, (response) => {
    response.resume();
    response.on('end', () => (round % 9 ? setImmediate : setTimeout)(ask, port));
  });
  request.end('x'.repeat(round % 3000));
}

server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  for (let clients = 0; clients < 4; clients++) ask(port);
  setTimeout(() => console.log('ready'), 1500);
});
setInterval(() => shapes.forEach((shape) => shape(3)), 5);
