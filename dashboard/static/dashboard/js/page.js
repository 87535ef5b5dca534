// The page's data, and requests to the API.

import { away, back } from "./banner.js";
import { withRange } from "./state.js";

const element = document.getElementById("page-data");
/** What the server gave this page: {prefix, anchor, newest, stale_after, …}. */
export const data = element ? JSON.parse(element.textContent) : { prefix: "", anchor: null, newest: null };

/** An answer of the API that is an error. Status 0: there was no answer. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The URL of a path of this service, as `/api/v1/query`; null values are left out, lists repeat their name. */
export function apiUrl(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") query.append(name, String(each));
    }
  }
  const text = query.toString().replaceAll("%3A", ":");
  return data.prefix + path + (text ? `?${text}` : "");
}

/** The page of a host, in the range of this page. */
export const hostUrl = (name) => withRange(`${data.prefix}/hosts/${encodeURIComponent(name)}`);
/** The page of a GPU, by its id or short id. */
export const gpuUrl = (id) => withRange(`${data.prefix}/gpus/${encodeURIComponent(id).replaceAll("%3A", ":")}`);

/** Whether an answer asks for a login, as after it has ended: then the banner says so. */
export function asksForLogin(response) {
  // The API answers 401; a page leads to the login.
  const asks = response.status === 401 || (response.redirected && new URL(response.url).pathname === `${data.prefix}/login`);
  if (asks) away("Your login has ended: reload this page to log in again");
  return asks;
}

/** @type {Map<string, {etag: string, body: any}>} */
const seen = new Map();
const MOST_SEEN = 40;

/** Gets JSON. An unchanged answer gives the very same object again. Throws ApiError; an abort passes through. */
export async function getJson(url, { signal } = {}) {
  const known = seen.get(url);
  const headers = { Accept: "application/json", ...(known ? { "If-None-Match": known.etag } : {}) };
  let response;
  try {
    response = await fetch(url, { headers, signal, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    away("The web service");
    throw new ApiError(0, "the web service does not answer");
  }
  if (asksForLogin(response)) throw new ApiError(401, "your login has ended");
  if (response.status === 304 && known) {
    back();
    return known.body;
  }
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(response.status, `the answer is not JSON (status ${response.status})`);
  }
  if (!response.ok) {
    const message = body?.message ?? `status ${response.status}`;
    if (response.status >= 500) away(message);
    throw new ApiError(response.status, message);
  }
  back();
  const etag = response.headers.get("ETag");
  if (etag) {
    seen.delete(url);
    seen.set(url, { etag, body });
    if (seen.size > MOST_SEEN) seen.delete(seen.keys().next().value);
  }
  return body;
}
