import {sizeText} from '../map/area.ts';
import {startDrawing, takeVisibleArea} from '../map/drawing.ts';
import type {DrawKind} from '../map/draw_tool.ts';
import {boxPolygon} from '../map/shapes.ts';
import {setArea} from '../search_actions.ts';
import {drawing, where} from '../state.ts';
import {Icon} from './Icon.tsx';
import {IconButton} from './IconButton.tsx';

/** The area of the search: draw it, take the visible part of the map, or remove it. */
export function AreaFilter() {
    const {bbox, polygon} = where.value;
    const outline = polygon ?? (bbox && boxPolygon(bbox));
    return (
        <div class="field">
            <span class="label">Area</span>
            {outline && (
                <div class="chip">
                    <span class="chip-label">{`${polygon ? 'Polygon' : 'Box'} of ${sizeText(outline)}`}</span>
                    <IconButton
                        icon="close"
                        label="Remove the area"
                        class="quiet small"
                        onClick={() => setArea(null)}
                    />
                </div>
            )}
            <div class="strip-message-actions">
                <DrawButton kind="box" label={bbox ? 'Draw again' : 'Draw a box'} />
                <DrawButton kind="polygon" label={polygon ? 'Draw again' : 'Polygon'} />
                <button
                    type="button"
                    class="button small"
                    title="Search in the part of the map that is visible"
                    onClick={takeVisibleArea}
                >
                    <Icon name="fit" size={14} />
                    Visible part
                </button>
            </div>
        </div>
    );
}

function DrawButton({kind, label}: {kind: DrawKind; label: string}) {
    return (
        <button
            type="button"
            class="button small"
            aria-pressed={drawing.value === kind}
            onClick={() => startDrawing(kind)}
        >
            <Icon name={kind} size={14} />
            {label}
        </button>
    );
}
