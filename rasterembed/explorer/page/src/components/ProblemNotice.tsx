import type {ApiProblem} from '../api.ts';

interface Properties {
    problem: ApiProblem;
    /** Asks again; without it the notice has no button. */
    retry?: () => void;
}

/** Status of a request that is wrong. The same request is wrong again. */
const WRONG = 422;

/** A failed request: what was wrong, as the service says it, and a button that asks again. */
export function ProblemNotice({problem, retry}: Properties) {
    return (
        <div class="notice bad" role="alert">
            <strong>{problem.title}</strong>
            <p>{problem.message}</p>
            {retry && problem.status !== WRONG && (
                <button type="button" class="button small" onClick={retry}>
                    Try again
                </button>
            )}
        </div>
    );
}
