import {useEffect, useRef} from 'preact/hooks';
import {openViewOf} from '../actions.ts';
import type {Card} from '../api.ts';
import {amountsOf, datesOfCard, stateOf} from '../card_text.ts';
import {sentence} from '../format.ts';
import {inPageWords} from '../page_words.ts';
import {markedCard} from '../state.ts';
import {Icon} from './Icon.tsx';
import {ProgressBar} from './ProgressBar.tsx';
import {StateBadge} from './StateBadge.tsx';
import './CardItem.css';

/** A dataset or a collection in the list. The whole card is a button that opens it. */
export function CardItem({card}: {card: Card}) {
    const amounts = amountsOf(card);
    const dates = datesOfCard(card);
    const isMarked = markedCard.value?.kind === card.kind && markedCard.value.id === card.id;
    const button = useRef<HTMLButtonElement>(null);
    useEffect(() => {
        // A place that the pointer finds on the map brings its card into view.
        if (isMarked && !button.current?.matches(':hover, :focus')) button.current?.scrollIntoView({block: 'nearest'});
    }, [isMarked]);
    const mark = (): void => {
        markedCard.value = {kind: card.kind, id: card.id};
    };
    const unmark = (): void => {
        markedCard.value = null;
    };
    return (
        <li>
            <button
                type="button"
                ref={button}
                data-card={`${card.kind}/${card.id}`}
                class={`card ${isMarked ? 'pointed' : ''}`}
                onClick={() => openViewOf(card)}
                onMouseEnter={mark}
                onMouseLeave={unmark}
                onFocus={mark}
                onBlur={unmark}
            >
                <span class="card-head">
                    <Icon name={card.kind === 'collections' ? 'scenes' : 'raster'} />
                    <span class="card-id" title={card.id}>
                        {card.id}
                    </span>
                    <StateBadge card={card} />
                </span>
                {(amounts || dates) && (
                    <span class="card-facts">
                        {amounts && <span>{amounts}</span>}
                        {dates && <span>{dates}</span>}
                    </span>
                )}
                {card.model && (
                    <span class="card-model" title={card.model}>
                        {card.model}
                    </span>
                )}
                {card.problem && <span class="card-problem">{sentence(inPageWords(card.problem))}</span>}
                {card.qa && !card.qa.passed && !card.problem && <span class={`card-problem ${stateOf(card).tone}`}>{card.qa.line}</span>}
                {card.progress && <ProgressBar progress={card.progress} />}
            </button>
        </li>
    );
}
