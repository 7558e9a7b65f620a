import {activeFilters, clearFilters} from '../filters.ts';
import {setWhere} from '../search_actions.ts';
import {where} from '../state.ts';
import {Icon} from './Icon.tsx';

/** The strip without a tile: which filters leave nothing, and buttons that remove them. */
export function EmptyAnswer({hints}: {hints: string[]}) {
    const filters = activeFilters(where.value);
    const texts = [
        'This view has no other tile than those of the query.',
        'No tile passes this filter. Remove it to search all tiles:',
    ];
    return (
        <div class="strip-message">
            {filters.length > 0 && hints.map((hint) => <p key={hint}>{hint}</p>)}
            <p>{texts[filters.length] ?? 'No tile passes all of these filters. Remove one of them:'}</p>
            <div class="strip-message-actions">
                {filters.map(({text, without}) => (
                    <button key={text} type="button" class="button small" onClick={() => setWhere(without)}>
                        <Icon name="close" size={12} />
                        {text}
                    </button>
                ))}
                {filters.length > 1 && (
                    <button type="button" class="button small" onClick={clearFilters}>
                        Remove all filters
                    </button>
                )}
            </div>
        </div>
    );
}
