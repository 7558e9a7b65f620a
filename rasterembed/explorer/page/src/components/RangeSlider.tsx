/** A slider with two handles. Each handle is a native range input, so keys and screen readers work. */
import './RangeSlider.css';

interface Props {
    /** Name of the group for screen readers. */
    label: string;
    lowLabel: string;
    highLabel: string;
    /** Largest number of both handles. The smallest one is 0. */
    max: number;
    low: number;
    high: number;
    /** Return the text of a handle's number, for screen readers. */
    text: (value: number) => string;
    onChange: (low: number, high: number) => void;
}

export function RangeSlider({label, lowLabel, highLabel, max, low, high, text, onChange}: Props) {
    const share = (value: number): string => `${max === 0 ? 0 : (100 * value) / max}%`;
    return (
        <div class="range-slider" role="group" aria-label={label}>
            <div class="range-slider-rail" />
            <div
                class="range-slider-chosen"
                ref={(bar) => {
                    if (bar === null) return;
                    bar.style.left = share(low);
                    bar.style.right = `${100 - Number.parseFloat(share(high))}%`;
                }}
            />
            <input
                type="range"
                min={0}
                max={max}
                value={low}
                // Both handles at the right end: only the left one can move, so it must be on top.
                class={low > max / 2 ? 'range-slider-top' : ''}
                aria-label={lowLabel}
                aria-valuetext={text(low)}
                onInput={(event) => {
                    const value = Math.min(event.currentTarget.valueAsNumber, high);
                    event.currentTarget.valueAsNumber = value; // The handle stops at the other handle.
                    onChange(value, high);
                }}
            />
            <input
                type="range"
                min={0}
                max={max}
                value={high}
                aria-label={highLabel}
                aria-valuetext={text(high)}
                onInput={(event) => {
                    const value = Math.max(event.currentTarget.valueAsNumber, low);
                    event.currentTarget.valueAsNumber = value;
                    onChange(low, value);
                }}
            />
        </div>
    );
}
