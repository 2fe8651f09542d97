"""The shipped migration: a marketplace's `users` into logins, vendors and subscribers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from bson import ObjectId
from pydantic import Field

from mongosplit.definition import From, Index, IsTrue, Migration, Part, Target
from mongosplit.lenses import Constant, Default, Equals, NotNull, Presence
from mongosplit.schema import ID_TYPES, Id, Number

Text = Annotated[str, Field(min_length=1)]


class Address(Part):
    """A postal address."""

    adresstyp: str | None = None
    strasse: str | None = None
    hausnummer: str | Number | None = None
    plz: str | Number | None = None
    ort: str | None = None
    telefon: str | None = None
    email: str | None = None
    anrede: str | None = None
    name1: str | None = None
    name2: str | None = None


class SocialMedia(Part):
    """Where else the vendor is found."""

    facebook: str | None = None
    instagram: str | None = None


class BusinessDetails(Part):
    """What kind of business it is."""

    certifications: list[str] | None = None
    productionMethods: list[str] | None = None
    businessType: str | None = None


class Location(Part):
    """Where the vendor is, as [longitude, latitude], and where it delivers."""

    coordinates: list[Number] | None = None
    address: str | None = None
    deliveryRadius: Number | None = None
    deliveryAreas: list[str] | None = None


class OperationalInfo(Part):
    """When the vendor is open for business."""

    seasonal: bool | None = None
    yearRoundOperation: bool | None = None
    peakSeason: dict[str, Any] | None = None


class PendingBooking(Part):
    """A booking not yet confirmed; `packageData` is the application's own."""

    createdAt: datetime | None = None
    status: str | None = None


class BaseUser(
    Target,
    collection="base_users",
    indexes=(Index("username", unique=True, only=("string",)), Index("email")),
):
    """Who may log in: authentication and authorisation, nothing else."""

    id: Annotated[Id, From("_id")]
    username: Annotated[str | None, From("username")] = None
    password: Annotated[str | None, From("password")] = None
    email: Annotated[Text, From("kontakt.email")]
    isAdmin: Annotated[bool, From("isAdmin", Default(False))]
    isActive: Annotated[bool, From("kontakt.status", Equals("aktiv", otherwise="inaktiv"))]
    lastLogin: Annotated[datetime | None, From("lastLogin")] = None
    createdAt: Annotated[datetime | None, From("createdAt")] = None
    updatedAt: Annotated[datetime | None, From("updatedAt")] = None


class Vendor(
    Target,
    collection="vendors",
    owner="userId",
    when=IsTrue("isVendor"),
    indexes=(Index("userId", unique=True),),
):
    """What a vendor shows and how its trial stands; one for each user who is a vendor."""

    id: Annotated[Id, From("_id")]
    userId: Annotated[Id, From("_id")]
    unternehmen: Annotated[str | None, From("vendorProfile.unternehmen")] = None
    beschreibung: Annotated[str | None, From("vendorProfile.beschreibung")] = None
    slogan: Annotated[str | None, From("vendorProfile.slogan")] = None
    kategorien: Annotated[list[str], From("vendorProfile.kategorien", Default([]))]
    profilBild: Annotated[str | None, From("vendorProfile.profilBild")] = None
    bannerBild: Annotated[str | None, From("vendorProfile.bannerBild")] = None
    oeffnungszeiten: Annotated[dict[str, Any] | None, From("vendorProfile.oeffnungszeiten")] = None
    website: Annotated[str | None, From("vendorProfile.website")] = None
    socialMedia: Annotated[SocialMedia | None, From("vendorProfile.socialMedia")] = None
    tags: Annotated[list[ObjectId] | None, From("vendorProfile.tags")] = None
    products: Annotated[list[ObjectId] | None, From("vendorProfile.products")] = None
    businessDetails: Annotated[BusinessDetails | None, From("vendorProfile.businessDetails")] = None
    location: Annotated[Location | None, From("vendorProfile.location")] = None
    operationalInfo: Annotated[OperationalInfo | None, From("vendorProfile.operationalInfo")] = None
    verifyStatus: Annotated[str, From("vendorProfile.verifyStatus", Default("unverified"))]
    featured: Annotated[bool | None, From("vendorProfile.featured")] = None
    businessEmail: Annotated[Text, From("kontakt.email", writes_back=False)]
    businessPhone: Annotated[str | None, From("kontakt.telefon")] = None
    addresses: Annotated[list[Address], From("adressen", Default([]))]
    registrationStatus: Annotated[str | None, From("registrationStatus")] = None
    registrationDate: Annotated[datetime | None, From("registrationDate")] = None
    trialStartDate: Annotated[datetime | None, From("trialStartDate")] = None
    trialEndDate: Annotated[datetime | None, From("trialEndDate")] = None
    isPubliclyVisible: Annotated[bool, From("isPubliclyVisible", Default(False))]
    pendingBooking: Annotated[PendingBooking | None, From("pendingBooking")] = None
    createdAt: Annotated[datetime | None, From("createdAt", writes_back=False)] = None
    updatedAt: Annotated[datetime | None, From("updatedAt", writes_back=False)] = None


class NewsletterSubscriber(
    Target,
    collection="newsletter_subscribers",
    owner="userId",
    when=IsTrue("kontakt.mailNewsletter"),
    indexes=(Index("email", unique=True), Index("userId", unique=True, only=ID_TYPES)),
    adopt_by="email",
):
    """Who gets the newsletter; shared with subscribers who have no account."""

    id: Annotated[Id, From("_id")]
    email: Annotated[Text, From("kontakt.email", writes_back=False)]
    name: Annotated[str | None, From("kontakt.name")] = None
    type: Annotated[str, From("kontakt.newslettertype", Default("general", blank=True))]
    isSubscribed: Annotated[bool, Constant(True)]
    confirmedAt: Annotated[
        datetime | None, From("kontakt.newsletterConfirmed", Presence(of="updatedAt"))
    ] = None
    confirmationToken: Annotated[str | None, From("kontakt.confirmationToken", NotNull())] = None
    tokenExpires: Annotated[datetime | None, From("kontakt.tokenExpires", NotNull())] = None
    userId: Annotated[Id, From("_id")]
    preferences: Annotated[dict[str, Any], Constant({"frequency": "monthly", "categories": []})]
    source: Annotated[str, Constant("user-account")]
    createdAt: Annotated[datetime | None, From("createdAt", writes_back=False)] = None
    updatedAt: Annotated[datetime | None, From("updatedAt", writes_back=False)] = None


migration = Migration(
    name="users", source="users", targets=(BaseUser, Vendor, NewsletterSubscriber)
)
