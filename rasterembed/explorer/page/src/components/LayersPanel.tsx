import {useId} from 'preact/hooks';
import {loadLegend, setColour, setOpacity, showImagery, showOutlines} from '../actions.ts';
import type {ViewDetails} from '../api.ts';
import {outlinesTruncated} from '../map/footprints.ts';
import {HEAT, NO_COLOUR, colour, hasQuery, imageryProblem, imageryShown, legend, opacity, outlinesShown, valueOf} from '../state.ts';
import {CLASSES} from '../tile_colours.ts';
import {ClassCount} from './ClassCount.tsx';
import {LegendView} from './LegendView.tsx';
import {ProblemNotice} from './ProblemNotice.tsx';
import {Slider} from './Slider.tsx';
import {Switch} from './Switch.tsx';
import './LayersPanel.css';

/** What the map shows: the rasters, the coloured tiles with their legend, the outlines. */
export function LayersPanel({details}: {details: ViewDetails}) {
    const id = useId();
    const chosen = colour.value ?? NO_COLOUR;
    const shownLegend = valueOf(legend.value);
    return (
        <>
            <div class="layers-switches">
                <Switch label="Imagery" checked={imageryShown.value} onChange={showImagery} />
                {imageryShown.value && imageryProblem.value && <p class="notice warn layers-hint">{imageryProblem.value}</p>}
                <Switch label="Outlines of tiles" checked={outlinesShown.value} onChange={showOutlines} />
                {outlinesShown.value && outlinesTruncated.value && <p class="muted layers-hint">Zoom in to see the outlines.</p>}
            </div>
            <div class="field">
                <label for={id}>Colour of tiles</label>
                <select id={id} class="select" value={chosen} onChange={(event) => setColour(event.currentTarget.value)}>
                    <option value={NO_COLOUR}>None</option>
                    {details.colours.map(({name, label}) => (
                        <option key={name} value={name} disabled={name === HEAT && !hasQuery.value}>
                            {name === HEAT && !hasQuery.value ? `${label} (click a tile first)` : label}
                        </option>
                    ))}
                </select>
            </div>
            {chosen === CLASSES && <ClassCount />}
            {chosen !== NO_COLOUR && (
                <>
                    {shownLegend && <LegendView legend={shownLegend} />}
                    {legend.value.state === 'loading' && !shownLegend && <div class="skeleton legend-loading" />}
                    {legend.value.state === 'failed' && (
                        <ProblemNotice problem={legend.value.problem} retry={() => void loadLegend()} />
                    )}
                    <Slider
                        label="Opacity"
                        min={0}
                        max={1}
                        step={0.05}
                        value={opacity.value}
                        text={`${Math.round(opacity.value * 100)} %`}
                        onInput={setOpacity}
                    />
                </>
            )}
        </>
    );
}
