// The server's API, as everybody else sees it.

/// Where the server's addresses begin: above this script's folder, whatever the route prefix is.
export const ROOT = new URL("..", import.meta.url);

/// An answer that is no answer: in the server's words where it has some.
export class ApiError extends Error {}

/// Asks for `path` below the API; gives the whole answer, its `data` and warnings.
export async function ask(path, params = {}, signal = undefined) {
  const url = new URL(path.startsWith("/") ? path.slice(1) : `api/v1/${path}`, ROOT);
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) form.append(name, value);
  let response;
  try {
    // Queries are posted, so that none is too long for an address.
    const post = path === "query" || path === "query_range";
    if (!post) url.search = form.toString();
    response = await fetch(url, post ? { method: "POST", body: form, signal } : { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. It may be restarting; this page tries again by itself.");
  }
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new ApiError(`The server answered ${response.status} ${response.statusText}.`);
  }
  if (answer.status !== "success") throw new ApiError(`${answer.errorType}: ${answer.error}`);
  return answer;
}

export const data = async (path, params, signal) => (await ask(path, params, signal)).data;
