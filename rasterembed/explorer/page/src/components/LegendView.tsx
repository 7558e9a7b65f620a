import {useEffect, useRef} from 'preact/hooks';
import type {Legend} from '../api.ts';
import {figure} from '../format.ts';
import './LegendView.css';

type Stop = NonNullable<Legend['stops']>[number];

/** A square or a strip of colour. The colour is set through the DOM, because the page allows no style attributes. */
function Colour({value, class: name}: {value: string; class: string}) {
    const element = useRef<HTMLSpanElement>(null);
    useEffect(() => {
        if (element.current) element.current.style.background = value;
    }, [value]);
    return <span ref={element} class={name} />;
}

function gradient(stops: Stop[]): string {
    const first = stops[0]?.value ?? 0;
    const range = (stops.at(-1)?.value ?? 1) - first || 1;
    const parts = stops.map(({value, colour}) => `${colour} ${(((value - first) / range) * 100).toFixed(1)}%`);
    return `linear-gradient(to right, ${parts.join(', ')})`;
}

function Ramp({legend}: {legend: Legend}) {
    const stops = legend.stops ?? [];
    if (!stops.length) return null;
    return (
        <>
            <Colour value={gradient(stops)} class="legend-ramp" />
            <div class="legend-ends">
                <span>{legend.low_text}</span>
                <span>{legend.high_text}</span>
            </div>
        </>
    );
}

function Classes({legend}: {legend: Legend}) {
    return (
        <ul class="legend-classes">
            {(legend.classes ?? []).map(({label, colour, tiles}) => (
                <li key={label}>
                    <Colour value={colour} class="legend-square" />
                    <span>{label}</span>
                    <span class="muted">{figure(tiles)}</span>
                </li>
            ))}
        </ul>
    );
}

/** What the colours of the tiles mean. */
export function LegendView({legend}: {legend: Legend}) {
    return (
        <figure class="legend" aria-label="Legend">
            <figcaption>{legend.label}</figcaption>
            {legend.type === 'ramp' && <Ramp legend={legend} />}
            {legend.type === 'classes' && <Classes legend={legend} />}
            {legend.type === 'rgb' && legend.channels?.map((channel) => <p key={channel} class="muted">{channel}</p>)}
            {legend.note && <p class="muted">{legend.note}</p>}
        </figure>
    );
}
