import {Icon} from './Icon.tsx';
import type {IconName} from './Icon.tsx';

interface Properties {
    icon: IconName;
    /** Name of the button, for people who do not see the icon, and as its tooltip. */
    label: string;
    onClick: () => void;
    pressed?: boolean;
    disabled?: boolean;
    class?: string;
}

export function IconButton({icon, label, onClick, pressed, disabled, class: more = ''}: Properties) {
    return (
        <button
            type="button"
            class={`button icon ${more}`}
            aria-label={label}
            title={label}
            aria-pressed={pressed}
            disabled={disabled}
            onClick={onClick}
        >
            <Icon name={icon} />
        </button>
    );
}
