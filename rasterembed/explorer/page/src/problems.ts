/** Turn whatever was thrown into a problem that the page can show. */
import {ApiProblem} from './api.ts';
import {sentence} from './format.ts';
import {inPageWords} from './page_words.ts';

export function problemFrom(error: unknown): ApiProblem {
    if (error instanceof ApiProblem) return error;
    return new ApiProblem('about:blank', 'Error', -1, error instanceof Error ? error.message : String(error));
}

export function isAbort(error: unknown): boolean {
    return error instanceof DOMException && error.name === 'AbortError';
}

/** Return the line for people of a body in `application/problem+json`. */
export async function detailOf(body: Blob): Promise<string> {
    try {
        const {detail} = JSON.parse(await body.text()) as {detail?: unknown};
        if (typeof detail === 'string') return sentence(inPageWords(detail));
    } catch {
        // Another program answered, such as a proxy.
    }
    return 'The service cannot draw the rasters.';
}
