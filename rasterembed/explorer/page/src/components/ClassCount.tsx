import {setClasses} from '../actions.ts';
import {classes} from '../state.ts';
import {FEWEST_CLASSES, MOST_CLASSES} from '../tile_colours.ts';

const COUNTS = Array.from({length: MOST_CLASSES - FEWEST_CLASSES + 1}, (_, place) => FEWEST_CLASSES + place);

/** The number of classes. It is a list, because a slider would ask for each number on its way, which takes seconds. */
export function ClassCount() {
    return (
        <label class="field">
            <span class="label">Number of classes</span>
            <select
                class="select"
                value={classes.value}
                onChange={(event) => setClasses(Number(event.currentTarget.value))}
            >
                {COUNTS.map((count) => (
                    <option key={count} value={count}>
                        {count}
                    </option>
                ))}
            </select>
        </label>
    );
}
