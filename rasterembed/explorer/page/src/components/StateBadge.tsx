import type {Card} from '../api.ts';
import {stateOf} from '../card_text.ts';
import './StateBadge.css';

export function StateBadge({card}: {card: Card}) {
    const {label, tone} = stateOf(card);
    return <span class={`badge ${tone}`}>{label}</span>;
}
