/** Turn whatever was thrown into a problem that the page can show. */
import {ApiProblem} from './api.ts';

export function problemFrom(error: unknown): ApiProblem {
    if (error instanceof ApiProblem) return error;
    return new ApiProblem('about:blank', 'Error', -1, error instanceof Error ? error.message : String(error));
}

export function isAbort(error: unknown): boolean {
    return error instanceof DOMException && error.name === 'AbortError';
}
