import {useEffect, useRef} from 'preact/hooks';
import type {Legend} from '../api.ts';
import {day, figure} from '../format.ts';
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

function text(value: number, unit: string | null | undefined): string {
    if (unit === 'date') return day(new Date(value * 1000).toISOString());
    return unit ? `${figure(value)} ${unit}` : figure(value);
}

function Ramp({legend}: {legend: Legend}) {
    const stops = legend.stops ?? [];
    const low = legend.low ?? stops[0]?.value ?? 0;
    const high = legend.high ?? stops.at(-1)?.value ?? 1;
    return (
        <>
            <Colour value={gradient(stops)} class="legend-ramp" />
            <div class="legend-ends">
                <span>{text(low, legend.unit)}</span>
                <span>{text(high, legend.unit)}</span>
            </div>
        </>
    );
}

function Classes({legend}: {legend: Legend}) {
    return (
        <ul class="legend-classes">
            {(legend.classes ?? []).map(({label, colour}) => (
                <li key={label}>
                    <Colour value={colour} class="legend-square" />
                    <span>{label}</span>
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
            {legend.type === 'rgb' && <p class="muted">Equal colours mean similar tiles.</p>}
        </figure>
    );
}
