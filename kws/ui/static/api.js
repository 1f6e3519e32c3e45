// Requests to the server, with the token of the link.

const KEPT = "kws-token";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// The token comes in the fragment of the printed link, and leaves the address bar at once.
export function takeToken() {
  const found = /(?:^#|&)token=([^&]+)/.exec(location.hash);
  if (!found) return;
  localStorage.setItem(KEPT, found[1]);
  history.replaceState(null, "", location.pathname + "#live");
}

const token = () => localStorage.getItem(KEPT) ?? "";

export async function request(path, { method = "GET", body, type, signal } = {}) {
  const headers = { Authorization: `Bearer ${token()}` };
  if (body !== undefined) headers["Content-Type"] = type ?? "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method, headers, signal,
      body: body === undefined || type ? body : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("kws does not answer. Is it still running?", 0);
  }
  if (answer.ok) return answer;
  const text = await answer.json().then((found) => found.error, () => answer.statusText);
  if (answer.status === 401) dispatchEvent(new CustomEvent("kws-refused", { detail: text }));
  throw new ApiError(text, answer.status);
}

export const get = async (path, options) => (await request(path, options)).json();
export const post = async (path, body) => (await request(path, { method: "POST", body })).json();

export function openSocket(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  const socket = new WebSocket(url, ["kws", `token.${token()}`]);
  socket.binaryType = "arraybuffer";
  return socket;
}
