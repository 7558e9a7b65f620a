/** Follow the runs that are under way. */
import {effect} from '@preact/signals';
import * as api from './api.ts';
import type {Card, ProgressOfView} from './api.ts';
import {loadStore, loadView} from './actions.ts';
import {reloadMapTiles} from './map/camera.ts';
import {problemFrom} from './problems.ts';
import {outage, store, valueOf, viewKey} from './state.ts';

/** Time between two questions in milliseconds: short while a run is under way, else long. */
const BUSY = 2000;
const CALM = 15000;

const nameOf = ({kind, id}: {kind: string; id: string}): string => `${kind}/${id}`;

/** Return the card with the progress that the service reports now. */
function withProgress(card: Card, reported: Map<string, ProgressOfView>): Card {
    const progress = reported.get(nameOf(card));
    return progress ? {...card, progress: {shards: progress.shards, done: progress.done, running: progress.running}} : card;
}

/** Take a report over into the cards; load the store again if a run began or ended. */
function applyProgress(report: ProgressOfView[]): void {
    const known = valueOf(store.value);
    if (!known) return;
    const reported = new Map(report.map((entry) => [nameOf(entry), entry]));
    const cards = [...known.datasets, ...known.collections];
    const names = new Set(cards.map(nameOf));
    const ended = cards.filter((card) => card.progress && !reported.has(nameOf(card)));
    const began = report.some((entry) => !names.has(nameOf(entry)));
    if (ended.length > 0 || began) {
        void loadStore();
        const open = viewKey.value;
        if (open && ended.some((card) => nameOf(card) === nameOf(open))) void loadView();
        return;
    }
    if (report.length === 0) return;
    store.value = {
        state: 'ready',
        value: {
            ...known,
            datasets: known.datasets.map((card) => withProgress(card, reported)),
            collections: known.collections.map((card) => withProgress(card, reported)),
        },
    };
}

/** Load again everything that may have failed while the service was away. */
function comeBack(): void {
    outage.value = null;
    void loadStore();
    void loadView();
    reloadMapTiles();
}

/** Ask for the progress of runs again and again, while the page is visible. */
export function followProgress(): void {
    let timer: number | undefined;
    const ask = async (): Promise<void> => {
        clearTimeout(timer);
        let pause = CALM;
        if (!document.hidden && store.value.state !== 'loading') {
            try {
                const report = await api.getProgress();
                applyProgress(report);
                if (report.some(({running}) => running)) pause = BUSY;
                if (outage.value || store.value.state === 'failed') comeBack();
            } catch (error) {
                // The cards stay as they are, and the next question may find the service again.
                const problem = problemFrom(error);
                outage.value = problem.isAway ? problem.message : null;
                if (problem.isAway) pause = BUSY;
            }
        }
        // While the question was under way, the timer may have been set again.
        clearTimeout(timer);
        timer = window.setTimeout(() => void ask(), pause);
    };
    // Another request may have found out first that the service is away.
    effect(() => {
        if (outage.value === null) return;
        clearTimeout(timer);
        timer = window.setTimeout(() => void ask(), BUSY);
    });
    document.addEventListener('visibilitychange', () => {
        if (!document.hidden) void ask();
    });
    timer = window.setTimeout(() => void ask(), BUSY);
}
