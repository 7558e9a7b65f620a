import {useEffect, useRef} from 'preact/hooks';
import type {Progress} from '../api.ts';
import {count} from '../format.ts';

/** Shards of a run that are done, as a bar with a text. */
export function ProgressBar({progress}: {progress: Progress}) {
    const {done, shards} = progress;
    const bar = useRef<HTMLSpanElement>(null);
    const share = shards > 0 ? Math.min(1, done / shards) : 0;
    useEffect(() => {
        if (bar.current) bar.current.style.width = `${share * 100}%`;
    }, [share]);
    return (
        <div class="progress">
            <div
                class="bar"
                role="progressbar"
                aria-label="Shards done"
                aria-valuemin={0}
                aria-valuemax={shards}
                aria-valuenow={done}
            >
                <span ref={bar} />
            </div>
            <span class="muted">
                {count(done)} of {count(shards)} shards
            </span>
        </div>
    );
}
