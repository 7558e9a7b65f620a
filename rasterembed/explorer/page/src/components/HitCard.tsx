import type {Hit} from '../api.ts';
import {dayOf} from '../dates.ts';
import {flyToTile} from '../map/flights.ts';
import {toggleExample} from '../search_actions.ts';
import {details} from '../search_state.ts';
import {hoveredHit, query, similarityRange} from '../state.ts';
import {shareOfRange} from '../similarity_range.ts';
import {placeText, similarityText} from '../texts.ts';
import {Icon} from './Icon.tsx';
import {Thumbnail} from './Thumbnail.tsx';
import './HitCard.css';

interface Props {
    hit: Hit;
    /** Whether the Tab key reaches this tile. Only one tile of the strip is reached; arrow keys go to the others. */
    active: boolean;
}

/** One tile of the answer in the strip: thumbnail, rank, similarity, place and date, and what can be done with it. */
export function HitCard({hit, active}: Props) {
    const {rank, similarity, acquired} = hit.properties;
    const range = similarityRange.value;
    const tab = active ? 0 : -1;
    const bar = (element: HTMLElement | null): void => {
        if (element !== null) element.style.width = `${range ? 100 * shareOfRange(similarity, range) : 0}%`;
    };
    return (
        <li
            class="hit"
            data-rank={rank}
            data-tile={hit.id}
            data-hovered={hoveredHit.value === hit.id}
            // The pointer need not enter: the next answer may put another tile below it.
            onPointerMove={(event) => {
                // A finger has no hover: its tap would leave the tile lit up.
                if (event.pointerType !== 'touch') hoveredHit.value = hit.id;
            }}
            onPointerLeave={() => {
                if (hoveredHit.peek() === hit.id) hoveredHit.value = null;
            }}
            onFocusCapture={() => {
                hoveredHit.value = hit.id;
            }}
        >
            <button
                type="button"
                class="hit-main"
                tabIndex={tab}
                title={`${hit.id}: show on the map`}
                onClick={() => flyToTile(hit.properties, hit.geometry)}
            >
                <Thumbnail name={hit.id} />
                <span class="hit-rank" aria-hidden="true">
                    {rank}
                </span>
                <span class="hit-text">
                    <span class="hit-similarity">
                        <span class="visually-hidden">Rank {rank}, similarity </span>
                        {similarityText(similarity)}
                        <span class="bar" aria-hidden="true">
                            <span ref={bar} />
                        </span>
                    </span>
                    <span class="hit-place">{placeText(hit.properties)}</span>
                    <span class="hit-date">{dayOf(acquired) || 'no date'}</span>
                    <span class="visually-hidden">: show on the map</span>
                </span>
            </button>
            <div class="hit-actions">
                <ExampleButton name={hit.id} rank={rank} role="like" tab={tab} />
                <ExampleButton name={hit.id} rank={rank} role="unlike" tab={tab} />
                <button
                    type="button"
                    class="hit-action"
                    tabIndex={tab}
                    aria-label={`Details of tile ${rank}`}
                    title="Details"
                    onClick={() => {
                        details.value = hit.id;
                    }}
                >
                    <Icon name="more" size={14} />
                </button>
            </div>
        </li>
    );
}

function ExampleButton({name, rank, role, tab}: {name: string; rank: number; role: 'like' | 'unlike'; tab: number}) {
    const more = role === 'like';
    return (
        <button
            type="button"
            class={`hit-action hit-${role}`}
            tabIndex={tab}
            aria-pressed={query.value[role].includes(name)}
            aria-label={`${more ? 'More' : 'Less'} like tile ${rank}`}
            title={more ? 'More like this' : 'Less like this'}
            onClick={() => toggleExample(name, role)}
        >
            <Icon name={role} size={12} />
            {more ? 'More' : 'Less'}
        </button>
    );
}
