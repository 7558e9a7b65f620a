import {loadHeat, showHeat} from '../heat.ts';
import {HEAT, colour, hasQuery, openView, similarity} from '../state.ts';
import {ProblemNotice} from './ProblemNotice.tsx';
import {Switch} from './Switch.tsx';

/** The switch that colours all tiles by their similarity to the query. */
export function HeatSwitch() {
    if (!openView.value) return null;
    const shown = colour.value === HEAT;
    const state = similarity.value;
    return (
        <>
            <Switch
                label="Similarity of all tiles on the map"
                checked={shown}
                disabled={!hasQuery.value && !shown}
                onChange={showHeat}
            />
            {shown && !hasQuery.value && (
                <p class="muted">Choose a tile: the map then shows how similar every tile is.</p>
            )}
            {shown && state.state === 'loading' && <p class="muted">Comparing all tiles…</p>}
            {shown && state.state === 'failed' && (
                <ProblemNotice problem={state.problem} retry={() => void loadHeat()} />
            )}
        </>
    );
}
