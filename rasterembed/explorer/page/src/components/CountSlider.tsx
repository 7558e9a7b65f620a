import {setK} from '../search_actions.ts';
import {k} from '../state.ts';
import {Slider} from './Slider.tsx';

/** Steps of the slider: one tile more matters among ten tiles, and hardly among a hundred. */
const STEPS = [1, 3, 6, 9, 12, 18, 24, 36, 48, 72, 100, 150, 200, 300, 500];

/** The slider for k, the number of tiles of an answer. */
export function CountSlider() {
    const above = STEPS.findIndex((step) => step >= k.value);
    return (
        <div class="count-slider">
            <Slider
                label="Tiles"
                min={0}
                max={STEPS.length - 1}
                step={1}
                value={above < 0 ? STEPS.length - 1 : above}
                text={String(k.value)}
                onInput={(place) => setK(STEPS[place] ?? k.value)}
            />
        </div>
    );
}
