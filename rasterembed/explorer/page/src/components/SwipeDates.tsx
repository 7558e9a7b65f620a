import {setSwipe} from '../actions.ts';
import type {DateOfView} from '../api.ts';
import {swipe} from '../state.ts';
import {Icon} from './Icon.tsx';

/** The button that shows two dates side by side, and the choice of the two dates. */
export function SwipeDates({dates}: {dates: DateOfView[]}) {
    const shown = swipe.value;
    const first = dates[0]?.date;
    const last = dates[dates.length - 1]?.date;
    if (first === undefined || last === undefined) return null;
    const choose = (side: 'left' | 'right', date: string): void => {
        if (shown) setSwipe({...shown, [side]: date});
    };
    return (
        <div class="swipe-dates">
            {shown && (
                <>
                    <DateChoice
                        label="Date on the left"
                        dates={dates}
                        value={shown.left}
                        onChange={(date) => choose('left', date)}
                    />
                    <DateChoice
                        label="Date on the right"
                        dates={dates}
                        value={shown.right}
                        onChange={(date) => choose('right', date)}
                    />
                </>
            )}
            <button
                type="button"
                class="button small"
                aria-pressed={shown !== null}
                onClick={() => setSwipe(shown ? null : {left: first, right: last})}
            >
                <Icon name="swipe" size={14} />
                Compare
            </button>
        </div>
    );
}

function DateChoice(props: {label: string; dates: DateOfView[]; value: string; onChange: (date: string) => void}) {
    return (
        <select
            class="select"
            aria-label={props.label}
            value={props.value}
            onChange={(event) => props.onChange(event.currentTarget.value)}
        >
            {props.dates.map(({date}) => (
                <option key={date} value={date}>
                    {date}
                </option>
            ))}
        </select>
    );
}
