import {datesOf} from '../dates.ts';
import {shownDatesText} from '../filters.ts';
import {counted} from '../format.ts';
import {showDate} from '../search_actions.ts';
import {openView, swipe, where} from '../state.ts';
import type {SwipeState, WhereState} from '../state.ts';
import {Icon} from './Icon.tsx';
import {IconButton} from './IconButton.tsx';
import {SwipeDates} from './SwipeDates.tsx';
import './Timeline.css';

/** Smallest and largest height of a tick, in pixels of the page. */
const TICK_PX = [5, 18] as const;

/** The dates of the view: a slider with a tick for each date. A chosen date limits the map and the search to it. */
export function Timeline() {
    const dates = datesOf(openView.value);
    if (dates.length < 2) return null;
    const {since, until} = where.value;
    const chosen = since !== null && since === until ? dates.findIndex(({date}) => date === since) : -1;
    const last = dates.length - 1;
    const step = (by: number): void => {
        const place = chosen >= 0 ? chosen + by : by > 0 ? 0 : last;
        const date = dates[Math.max(0, Math.min(last, place))];
        if (date) showDate(date.date);
    };
    const compared = swipe.value;
    const now = shownDatesText(where.value, compared);
    return (
        <section class="timeline" aria-label="Timeline">
            <IconButton
                icon="left"
                label="Earlier date"
                class="quiet small"
                disabled={chosen === 0}
                onClick={() => step(-1)}
            />
            <div class="timeline-track">
                <Ticks dates={dates} isShown={(date) => isShown(date, where.value, compared)} />
                <input
                    class={chosen >= 0 ? 'timeline-slider' : 'timeline-slider timeline-all'}
                    type="range"
                    min={0}
                    max={last}
                    value={chosen >= 0 ? chosen : last}
                    aria-label="Date"
                    aria-valuetext={now}
                    onInput={(event) => {
                        const date = dates[event.currentTarget.valueAsNumber];
                        if (date) showDate(date.date);
                    }}
                    onKeyDown={(event) => {
                        // Without a chosen date, the knob stands at the end: the first key chooses a date, and moves on then.
                        if (chosen >= 0 || !event.key.startsWith('Arrow')) return;
                        event.preventDefault();
                        step(event.key === 'ArrowLeft' || event.key === 'ArrowDown' ? -1 : 1);
                    }}
                />
            </div>
            <IconButton
                icon="right"
                label="Later date"
                class="quiet small"
                disabled={chosen === last}
                onClick={() => step(1)}
            />
            <output class="timeline-now">
                <Icon name="calendar" size={14} />
                {now}
            </output>
            <button
                type="button"
                class="button small"
                disabled={since === null && until === null}
                onClick={() => showDate(null)}
            >
                All dates
            </button>
            <SwipeDates dates={dates} />
        </section>
    );
}

/** Return whether the map shows the scenes of a date. */
function isShown(date: string, {since, until}: WhereState, compared: SwipeState | null): boolean {
    if (compared) return date === compared.left || date === compared.right;
    return (since === null || date >= since) && (until === null || date <= until);
}

function Ticks({dates, isShown}: {dates: {date: string; scenes: number}[]; isShown: (date: string) => boolean}) {
    const most = Math.max(1, ...dates.map(({scenes}) => scenes));
    const last = dates.length - 1;
    return (
        <div class="timeline-ticks" aria-hidden="true">
            {dates.map(({date, scenes}, place) => (
                <span
                    key={date}
                    class="timeline-tick"
                    title={`${date}: ${counted(scenes, 'scene')}`}
                    data-chosen={isShown(date)}
                    ref={(tick) => {
                        if (tick === null) return;
                        tick.style.left = `${(100 * place) / last}%`;
                        tick.style.height = `${TICK_PX[0] + ((TICK_PX[1] - TICK_PX[0]) * scenes) / most}px`;
                    }}
                />
            ))}
        </div>
    );
}
