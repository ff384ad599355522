"""XML as an expression."""

from lxml import etree

XmlElement = etree._Element


def element(
    tag: str, /, *children: XmlElement | None, text: str | None = None, **attributes: object
) -> XmlElement:
    """One element; children and attributes that are None are left out."""
    made = etree.Element(tag)
    for attribute, value in attributes.items():
        if value is not None:
            made.set(attribute, str(value))
    made.text = text
    made.extend([child for child in children if child is not None])
    return made


def to_text(tree: XmlElement) -> str:
    """Indented with two spaces, no declaration."""
    etree.indent(tree)
    return etree.tostring(tree, encoding="unicode").strip() + "\n"


def parse(xml: str) -> XmlElement:
    """libvirt's XML: entities and networks are never followed."""
    return etree.fromstring(xml, etree.XMLParser(resolve_entities=False, remove_blank_text=True))
