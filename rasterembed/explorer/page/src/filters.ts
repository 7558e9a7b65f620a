/** The filters of a search as text for people. */
import type {ViewDetails} from './api.ts';
import {sizeText} from './map/area.ts';
import {boxPolygon} from './map/shapes.ts';
import {setWhere} from './search_actions.ts';
import {NO_WHERE} from './state.ts';
import type {SwipeState, WhereState} from './state.ts';

/** A filter that is in use. */
export interface ActiveFilter {
    /** What the filter asks for, as text for people. */
    text: string;
    /** The change that removes the filter. */
    without: Partial<WhereState>;
}

/** Return whether one of several scenes of a tile can be chosen: all scenes must share the ids of their tiles. */
export function canPick({kind, anchored}: Pick<ViewDetails, 'kind' | 'anchored'>): boolean {
    return kind === 'collections' && anchored;
}

/** Return the filters in use, each with the change that removes it. */
export function activeFilters(state: WhereState): ActiveFilter[] {
    const filters: ActiveFilter[] = [];
    if (state.bbox) filters.push({text: `Box of ${sizeText(boxPolygon(state.bbox))}`, without: {bbox: null}});
    if (state.polygon) filters.push({text: `Polygon of ${sizeText(state.polygon)}`, without: {polygon: null}});
    if (state.since || state.until) {
        filters.push({text: datesText(state.since, state.until), without: {since: null, until: null}});
    }
    if (state.minValid !== null) {
        filters.push({text: `At least ${Math.round(100 * state.minValid)} % valid`, without: {minValid: null}});
    }
    if (state.maxCloud !== null) {
        filters.push({text: `At most ${state.maxCloud} % clouds`, without: {maxCloud: null}});
    }
    if (state.pick && state.pick !== 'all') {
        filters.push({text: `Only the ${state.pick} scene`, without: {pick: null}});
    }
    return filters;
}

/** Return a range of dates as text for people. */
export function datesText(since: string | null, until: string | null): string {
    if (since === null && until === null) return 'All dates';
    if (since === until) return since ?? '';
    if (since === null) return `Until ${until}`;
    return until === null ? `Since ${since}` : `${since} to ${until}`;
}

/** Return the dates that the map shows as text for people: those of the filter, or the two that are compared. */
export function shownDatesText({since, until}: WhereState, compared: SwipeState | null): string {
    return compared ? `${compared.left} and ${compared.right}` : datesText(since, until);
}

export function clearFilters(): void {
    setWhere(NO_WHERE);
}
