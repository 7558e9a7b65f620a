/** Load a value of the service into a signal; a newer call ends the older one. */
import type {Signal} from '@preact/signals';
import {isAbort, problemFrom} from './problems.ts';
import {outage, valueOf} from './state.ts';
import type {Loadable} from './state.ts';

const running = new WeakMap<object, AbortController>();

/** End the request that fills `target`, if one is under way. */
export function cancel<T>(target: Signal<Loadable<T>>): void {
    running.get(target)?.abort();
    running.delete(target);
}

/**
 * Fill `target` with the answer of `request`.
 *
 * Args:
 *     target: Signal that shows the state of the request.
 *     request: Starts the request; the signal ends it.
 *     keep: Whether the value before stays visible while the new one is loaded.
 *
 * Returns:
 *     The value, or null if the request failed or a newer one took its place.
 */
export async function load<T>(
    target: Signal<Loadable<T>>,
    request: (signal: AbortSignal) => Promise<T>,
    keep = true,
): Promise<T | null> {
    cancel(target);
    const controller = new AbortController();
    running.set(target, controller);
    const last = keep ? valueOf(target.peek()) : null;
    const before = last === null ? {} : {last};
    target.value = {state: 'loading', ...before};
    try {
        const value = await request(controller.signal);
        if (running.get(target) !== controller) return null;
        target.value = {state: 'ready', value};
        return value;
    } catch (error) {
        if (isAbort(error) || running.get(target) !== controller) return null;
        const problem = problemFrom(error);
        if (problem.isUnreachable) outage.value = problem.message;
        target.value = {state: 'failed', problem, ...before};
        return null;
    }
}
