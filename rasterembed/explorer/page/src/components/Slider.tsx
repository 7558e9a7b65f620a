import {useEffect, useId, useRef} from 'preact/hooks';
import './Slider.css';

interface Properties {
    label: string;
    min: number;
    max: number;
    step: number;
    value: number;
    /** Text of the value for people, such as "70 %". */
    text: string;
    /** Called while the knob moves. */
    onInput: (value: number) => void;
}

export function Slider({label, min, max, step, value, text, onInput}: Properties) {
    const id = useId();
    const input = useRef<HTMLInputElement>(null);
    const filled = max > min ? ((value - min) / (max - min)) * 100 : 0;
    useEffect(() => input.current?.style.setProperty('--filled', `${filled}%`), [filled]);
    return (
        <div class="slider">
            <label for={id}>{label}</label>
            <output for={id}>{text}</output>
            <input
                ref={input}
                id={id}
                type="range"
                min={min}
                max={max}
                step={step}
                value={value}
                aria-valuetext={text}
                onInput={(event) => onInput(event.currentTarget.valueAsNumber)}
            />
        </div>
    );
}
