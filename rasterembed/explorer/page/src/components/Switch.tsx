import './Switch.css';

interface Properties {
    label: string;
    checked: boolean;
    onChange: (checked: boolean) => void;
    disabled?: boolean;
}

export function Switch({label, checked, onChange, disabled}: Properties) {
    return (
        <label class="switch">
            <span>{label}</span>
            <input
                type="checkbox"
                role="switch"
                checked={checked}
                disabled={disabled}
                onChange={(event) => onChange(event.currentTarget.checked)}
            />
        </label>
    );
}
