import type {ApiProblem} from '../api.ts';
import {outage} from '../state.ts';

interface Properties {
    problem: ApiProblem;
    /** Asks again; without it the notice has no such button. */
    retry?: () => void;
    /** Another way on: the text of a button, and what it does. */
    other?: {label: string; onClick: () => void};
}

/** Status of a request that is wrong. The same request is wrong again. */
const WRONG = 422;

/** A failed request: what was wrong, as the service says it, and a button that asks again. */
export function ProblemNotice({problem, retry, other}: Properties) {
    return (
        <div class="notice bad" role="alert">
            <strong>{problem.title}</strong>
            <p>{problem.message}</p>
            {problem.isAway && outage.value !== null && <p>The page tries again by itself.</p>}
            {retry && problem.status !== WRONG && (
                <button type="button" class="button small" onClick={retry}>
                    Try again
                </button>
            )}
            {other && (
                <button type="button" class="button small" onClick={other.onClick}>
                    {other.label}
                </button>
            )}
        </div>
    );
}
