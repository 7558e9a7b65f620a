import {useEffect, useRef} from 'preact/hooks';
import type {Progress} from '../api.ts';
import {count, counted} from '../format.ts';

function Bar({done, shards}: {done: number; shards: number}) {
    const bar = useRef<HTMLSpanElement>(null);
    const share = shards > 0 ? Math.min(1, done / shards) : 0;
    useEffect(() => {
        if (bar.current) bar.current.style.width = `${share * 100}%`;
    }, [share]);
    return (
        <span
            class="bar"
            role="progressbar"
            aria-label="Shards done"
            aria-valuemin={0}
            aria-valuemax={shards}
            aria-valuenow={done}
        >
            <span ref={bar} />
        </span>
    );
}

/** How far a run is: a bar with a text, or only the text if the end is not known. */
export function ProgressBar({progress}: {progress: Progress}) {
    const {done, shards, running} = progress;
    const amount = shards === null ? `${counted(done, 'scene')} done` : `${count(done)} of ${counted(shards, 'shard')} done`;
    return (
        <span class="progress">
            {shards !== null && <Bar done={done} shards={shards} />}
            <span class="muted">{running ? amount : `${amount}. No run writes now: the same command continues it.`}</span>
        </span>
    );
}
